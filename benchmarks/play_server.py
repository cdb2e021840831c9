"""`jepa-gym play` as a page in a browser: one WebSocket, a command in, pictures and numbers out."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from aiohttp import WSCloseCode, WSMsgType, web
from PIL import Image

from jepa_gym.benchmarks.play_game import Game

_LOG = logging.getLogger(__name__)
PAGE = Path(__file__).with_name("play.html")
JPEG_QUALITY = 90


def picture(frame: np.ndarray) -> str:
    """Return a frame (Y, X, 3) uint8 as a JPEG in base64."""
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=JPEG_QUALITY)
    return base64.b64encode(file.getbuffer()).decode()


def told(game: Game) -> str:
    """Return what the page shows now, as JSON."""
    last = game.moments[-1]
    frames = {
        "goal": last.observation["goal_pixels"],
        "real": last.observation["pixels"],
        "imagined": last.imagined,
    }
    return json.dumps(game.facts() | {"pictures": {n: picture(x) for n, x in frames.items()}})


class Server:
    """Serves one game to whoever opens the page; all of them see and drive the same.

    The game lives in a thread of its own, which OpenGL asks for.

    Args:
        make: Makes the game, in that thread.
        after: Called there with the game after each command.
    """

    def __init__(self, make: Callable[[], Game], after: Callable[[Game], None]) -> None:
        self._make, self._after = make, after
        self._thread = ThreadPoolExecutor(1, "game")
        self._sockets: set[web.WebSocketResponse] = set()
        self._game: Game | None = None

    def application(self) -> web.Application:
        """Return the application: the page at `/`, the WebSocket at `/ws`."""
        application = web.Application()
        application.add_routes([web.get("/", self._page), web.get("/ws", self._socket)])
        application.on_startup.append(self._begin)
        application.on_shutdown.append(self._hang_up)
        application.on_cleanup.append(self._end)
        return application

    async def _begin(self, application: web.Application) -> None:
        self._game = await self._in_thread(self._make)

    async def _hang_up(self, application: web.Application) -> None:
        for socket in tuple(self._sockets):
            await socket.close(code=WSCloseCode.GOING_AWAY)

    async def _end(self, application: web.Application) -> None:
        self._thread.shutdown(wait=True)

    async def _page(self, request: web.Request) -> web.StreamResponse:
        return web.Response(text=PAGE.read_text(), content_type="text/html")

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        # other pages in the same browser may open sockets to this machine, too
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != request.host:
            raise web.HTTPForbidden(text=f"the page of {origin} may not drive this game")
        socket = web.WebSocketResponse(heartbeat=30)
        await socket.prepare(request)
        self._sockets.add(socket)
        try:
            await socket.send_str(await self._in_thread(self._told))
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    text = await self._in_thread(self._answer, message.data)
                    await asyncio.gather(
                        *(one.send_str(text) for one in self._sockets), return_exceptions=True
                    )
        finally:
            self._sockets.discard(socket)
        return socket

    async def _in_thread(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    def _told(self) -> str:
        assert self._game is not None
        return told(self._game)

    def _answer(self, text: str) -> str:
        """Carry out what the page asks for; whatever is wrong with it is told there."""
        game = self._game
        assert game is not None
        try:
            game.do(str(json.loads(text)["command"]))
            self._after(game)
        except (ValueError, KeyError, TypeError, OSError) as error:
            _LOG.warning("%s", error)
            game.message = str(error)
        return told(game)


def serve(server: Server, host: str, port: int, ready: Callable[[int], None]) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Args:
        server: Has the game.
        host: Address to listen at.
        port: 0 for any that is free.
        ready: Called with the port as soon as the page can be opened.

    Raises:
        OSError: If the port is taken.
    """

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        runner = web.AppRunner(server.application(), access_log=None, shutdown_timeout=1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, host, port)
            await site.start()
            ready(runner.addresses[0][1])
            await stop.wait()
        finally:
            await runner.cleanup()

    asyncio.run(run())
