"""WebSocket endpoints in FastAPI."""

from collections import defaultdict

from fastapi import Cookie, FastAPI, HTTPException, WebSocket, WebSocketDisconnect, WebSocketException

app = FastAPI()
rooms: defaultdict[str, set[WebSocket]] = defaultdict(set)


@app.websocket("/echo/{place}")
async def echo(websocket: WebSocket, place: str, greeting: str = ""):
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(f"{place}: {greeting} {text}")


@app.websocket("/json")
async def count(websocket: WebSocket, who: str = Cookie("nobody")):
    await websocket.accept()
    message = await websocket.receive_json()
    await websocket.send_json({"n": message["n"] + 1, "who": who})
    await websocket.close()


@app.websocket("/room/{name}")
async def room(websocket: WebSocket, name: str):
    await websocket.accept()
    rooms[name].add(websocket)
    await websocket.send_text("joined")
    try:
        while True:
            text = await websocket.receive_text()
            for member in rooms[name]:
                await member.send_text(text)
    except WebSocketDisconnect:
        rooms[name].discard(websocket)
        for member in rooms[name]:
            await member.send_text("one left")


@app.websocket("/secret")
async def secret(websocket: WebSocket):
    raise HTTPException(401, "no")


@app.websocket("/policy")
async def policy(websocket: WebSocket):
    await websocket.accept()
    raise WebSocketException(1008, "against the policy")
