"""Files of models: our folders, published weights, downloads and exports."""
