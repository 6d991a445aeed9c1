"use strict";

const element = (id) => document.getElementById(id);
const address = (path) => new URL(path, location.href.replace(/^http/, "ws")).href;

/* A WebSocket that comes back: after 0.2 s, then 0.4 s, ... up to 5 s. */
class Link {
  constructor(path, handlers) {
    this.path = path;
    this.handlers = handlers;
    this.delay = 200;
    this.open();
  }

  open() {
    this.socket = new WebSocket(address(this.path));
    this.socket.onopen = () => {
      this.delay = 200;
      this.handlers.onopen?.();
    };
    this.socket.onmessage = (event) => this.handlers.onmessage(JSON.parse(event.data));
    this.socket.onclose = (event) => {
      this.handlers.onclose?.(event);
      if (!this.ended) {
        this.timer = setTimeout(() => this.open(), this.delay);
        this.delay = Math.min(2 * this.delay, 5000);
      }
    };
  }

  send(text) {
    this.socket.send(text);
  }

  end() {
    this.ended = true;
    clearTimeout(this.timer);
    this.socket.close();
  }
}

let link = null;

function show(text, kind) {
  const line = document.createElement("div");
  line.className = kind;
  line.textContent = text;
  element("log").append(line);
  line.scrollIntoView({ block: "nearest" });
}

function setStatus(state, text) {
  element("status").dataset.state = state;
  element("status").textContent = text;
}

function join(room, name) {
  link?.end();
  const path = `/rooms/${encodeURIComponent(room)}?name=${encodeURIComponent(name)}`;
  link = new Link(path, {
    onopen: () => setStatus("open", `in ${room}`),
    onclose: (event) => setStatus("closed", event.reason || "connection lost, trying again"),
    onmessage: (message) => {
      if (message.kind === "text") {
        show(`${message.name}: ${message.text}`, "text");
      } else {
        show(`${message.name} ${message.kind}`, "note");
      }
    },
  });
}

element("join").addEventListener("submit", (event) => {
  event.preventDefault();
  join(element("room").value.trim(), element("name").value.trim());
});

element("say").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = element("text").value;
  if (text && link?.socket.readyState === WebSocket.OPEN) {
    link.send(text);
    element("text").value = "";
  }
});

new Link("/dashboard", {
  onmessage: (overview) => {
    element("processes").textContent = overview.processes;
    element("messages").textContent = overview.messages;
    const rows = Object.entries(overview.rooms).sort().map(([room, members]) => {
      const row = document.createElement("tr");
      for (const text of [room, members]) {
        row.insertCell().textContent = text;
      }
      return row;
    });
    element("rooms").replaceChildren(...rows);
  },
});
