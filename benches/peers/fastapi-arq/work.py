"""The worker: arq hands out jobs, each becomes its rows in one transaction."""

import asyncio
import json
import os
from pathlib import Path
from uuid import UUID

import asyncpg
import uvloop
from arq import Retry
from arq.worker import func, run_worker

from message import Message, fingerprint_of, key_of, redis_settings

STORE = Path(__file__).with_name("..").joinpath("store.sql").read_text()
# Seconds for a connection, and for PostgreSQL's answer: together less than job_timeout, which would end the job for good.
PATIENCE = 20
FIELDS = Message.model_fields.keys()


async def store(ctx: dict, message: dict) -> None:
    extra = {name: value for name, value in message.items() if name not in FIELDS}
    accepted_ms = int(ctx["enqueue_time"].timestamp() * 1000)
    values = (
        UUID(bytes=key_of(message["external_message_id"])),
        message["send_at"],
        fingerprint_of(message),
        accepted_ms,
        message["external_client_id"],
        message["client_phone"],
        message["external_message_id"],
        message["message_text"],
        json.dumps(extra) if extra else None,
    )
    try:
        async with ctx["pool"].acquire(timeout=PATIENCE) as connection:
            # asyncpg prepares it once a connection by itself.
            await connection.execute(STORE, *values, timeout=PATIENCE)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        # Any other exception would end the job for good.
        raise Retry(defer=min(ctx["job_try"] * 5, 60)) from error


async def startup(ctx: dict) -> None:
    ctx["pool"] = await asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=10, max_size=40)


async def shutdown(ctx: dict) -> None:
    await ctx["pool"].close()


class WorkerSettings:
    functions = [func(store, keep_result=0, max_tries=100)]
    on_startup = startup
    on_shutdown = shutdown
    redis_settings = redis_settings()
    # What a killed worker had begun is begun again ten seconds after that.
    job_timeout = 60
    max_jobs = 100
    poll_delay = 0.02
    log_results = False


if __name__ == "__main__":
    asyncio.set_event_loop(uvloop.new_event_loop())
    run_worker(WorkerSettings)
