"""A hawkBit-style server, goosebit, as it comes: its own settings, a database of its own.

Arguments: a folder for the database, a port. Serves until it is killed.
"""

import asyncio
import os
import sys

folder, port = sys.argv[1:]
os.environ.update(
    GOOSEBIT_DB_URI=f"sqlite://{folder}/goosebit.sqlite3",
    GOOSEBIT_ARTIFACTS_DIR=f"{folder}/artifacts",
    GOOSEBIT_PORT=port,
)

import goosebit  # noqa: E402
import uvicorn  # noqa: E402
from goosebit.db.config import TORTOISE_CONF  # noqa: E402
from tortoise import Tortoise  # noqa: E402


async def tables():
    await Tortoise.init(config=TORTOISE_CONF)
    await Tortoise.generate_schemas()
    await Tortoise.close_connections()


asyncio.run(tables())
uvicorn.run(goosebit.app, host="127.0.0.1", port=int(port), log_level="warning")
