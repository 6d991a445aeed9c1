"""A FastAPI application: a text answer, and a JSON answer made of a path and a query parameter."""

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel

app = FastAPI()


class Item(BaseModel):
    id: int
    name: str
    limit: int
    tags: list[str]
    price: float


@app.get("/", response_class=PlainTextResponse)
async def text() -> str:
    return "Hello, world!"


@app.get("/items/{item_id}")
async def item(item_id: int, limit: int = 10) -> Item:
    return Item(id=item_id, name=f"item {item_id}", limit=limit, tags=["new", "blue"], price=9.5)
