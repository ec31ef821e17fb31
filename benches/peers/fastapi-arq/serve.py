"""The gateway: FastAPI checks a message with pydantic, arq puts it into Redis, and only then comes the 202."""

import ctypes
import logging
import signal
from contextlib import asynccontextmanager

from arq import create_pool
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from redis.exceptions import RedisError

from message import Message, redis_settings

PR_SET_PDEATHSIG = 1


@asynccontextmanager
async def lifespan(app: FastAPI):
    # uvicorn's processes would outlive it when it is killed.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    app.state.queue = await create_pool(redis_settings())
    yield
    await app.state.queue.aclose()


app = FastAPI(lifespan=lifespan)


@app.post("/api/v1/webhook", status_code=202)
async def webhook(message: Message) -> JSONResponse:
    message_id = message.external_message_id
    try:
        job = await app.state.queue.enqueue_job("store", message.model_dump(), _job_id=message_id)
    except (RedisError, OSError) as error:
        logging.error("serve: %s", error)
        return JSONResponse({"error": "not known whether it was accepted: send it again"}, status_code=503)
    # None means that a job with this id is there already.
    status, code = ("accepted", 202) if job else ("duplicate", 200)
    return JSONResponse({"status": status, "message_id": message_id}, status_code=code)
