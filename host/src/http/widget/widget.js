// <smooth-agent-chat endpoint agent-id agent-name mode start-open>: one conversation with the agent behind a WebSocket.
// It makes no HTTP request, keeps nothing in the browser, and writes what others say only as text.
(() => {
  "use strict";

  const STYLE = `
    [hidden] { display: none !important; }
    :host { font: 16px/1.5 system-ui, sans-serif; color: CanvasText; }
    :host([mode="fullpage"]) { position: fixed; inset: 0; display: block; }
    .box { display: flex; flex-direction: column; height: 100%; min-height: 24em; background: Canvas; }
    :host(:not([mode="fullpage"])) .box { width: 24em; max-width: 100%; height: 32em; border: 1px solid GrayText; }
    .log { flex: 1; overflow-y: auto; padding: 1em; }
    article { max-width: 44em; margin: 0 auto 1em; overflow-wrap: anywhere; }
    h3 { font-size: .85em; margin: 0; } .text { white-space: pre-wrap; } .note { font-style: italic; }
    form { display: flex; gap: .5em; padding: 1em; max-width: 46em; width: 100%; box-sizing: border-box; margin: 0 auto; }
    textarea { flex: 1; font: inherit; min-height: 44px; resize: vertical; box-sizing: border-box; }
    button { font: inherit; min-height: 44px; min-width: 44px; padding: 0 1em; }
    dialog { max-width: 32em; } .question { white-space: pre-wrap; overflow-wrap: anywhere; }
    .hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
    ol { margin: .5em 0; padding-inline-start: 1.5em; font-size: .9em; }`;

  const make = (name, attributes = {}, ...children) => {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  };
  const isWeb = (url) => typeof url === "string" && /^https?:\/\//i.test(url);

  class SmoothAgentChat extends HTMLElement {
    #socket = null; #session = null; #turn = null; #nextId = 0; #waiting = new Map(); #retries = 0; #timer = 0;
    #log; #status; #alert; #input; #send; #stop; #dialog; #question;

    connectedCallback() {
      if (!this.shadowRoot) this.#build();
      if (this.hasAttribute("start-open")) this.open();
    }

    disconnectedCallback() {
      clearTimeout(this.#timer);
      const socket = this.#socket;
      this.#socket = null;
      socket?.close(1000);
    }

    /** Shows the chat and connects. */
    open() {
      this.shadowRoot.querySelector(".box").hidden = false;
      this.shadowRoot.querySelector(".opener").hidden = true;
      if (!this.#socket) this.#connect();
      this.#input.focus();
    }

    get #agent() { return this.getAttribute("agent-name") || "Agent"; }

    #build() {
      const root = this.attachShadow({ mode: "open" });
      const sheet = new CSSStyleSheet();
      sheet.replaceSync(STYLE);
      root.adoptedStyleSheets = [sheet];
      this.#log = make("div", { class: "log", role: "log", "aria-live": "off", "aria-label": "Conversation", tabindex: "0" });
      this.#status = make("div", { class: "hidden", "aria-live": "polite" });
      this.#alert = make("div", { class: "hidden", role: "alert" });
      this.#input = make("textarea", { "aria-label": "Message", rows: "1", dir: "auto", maxlength: "10000" });
      this.#send = make("button", { type: "submit" }, "Send");
      this.#stop = make("button", { type: "button" }, "Stop");
      this.#stop.hidden = true;
      this.#stop.onclick = () => this.#emit({ action: "cancel" });
      const form = make("form", {}, this.#input, this.#send, this.#stop);
      form.onsubmit = (event) => { event.preventDefault(); this.#say(); };
      this.#input.onkeydown = (event) => {
        if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); this.#say(); }
      };
      this.#question = make("p", { class: "question", id: "question", dir: "auto" });
      const deny = make("button", { type: "button", autofocus: "" }, "Deny");
      const approve = make("button", { type: "button" }, "Approve");
      deny.onclick = () => this.#decide(false);
      approve.onclick = () => this.#decide(true);
      this.#dialog = make("dialog", { role: "alertdialog", "aria-labelledby": "title", "aria-describedby": "question" },
        make("h2", { id: "title" }, "The agent asks for your approval"), this.#question, deny, approve);
      // Esc says no: what is not approved does not happen.
      this.#dialog.oncancel = (event) => { event.preventDefault(); this.#decide(false); };
      const box = make("div", { class: "box" }, this.#log, this.#status, this.#alert, form, this.#dialog);
      const opener = make("button", { type: "button", class: "opener" }, "Chat with " + this.#agent);
      opener.onclick = () => this.open();
      box.hidden = true;
      root.append(opener, box);
    }

    #connect() {
      const socket = new WebSocket(this.getAttribute("endpoint"));
      this.#socket = socket;
      socket.onopen = async () => {
        const frame = { action: "create_conversation_session", agentId: this.getAttribute("agent-id") };
        const resumed = this.#session?.conversationId;
        if (resumed) frame.conversationId = resumed;
        const reply = await this.#ask(frame);
        if (reply.type !== "immediate_response") return this.#fail(reply.error?.message || "No session could be opened.");
        this.#retries = 0;
        this.#session = reply.data;
        this.#status.textContent = "Connected";
        if (resumed === reply.data.conversationId) this.#reload();
      };
      socket.onmessage = (event) => this.#receive(JSON.parse(event.data));
      socket.onclose = () => {
        if (this.#socket !== socket) return;
        this.#waiting.clear();
        this.#dialog.close();
        this.#end();
        const wait = Math.min(30, 2 ** this.#retries++) * (0.5 + Math.random() / 2);
        this.#fail("The connection was lost. Trying again.");
        this.#timer = setTimeout(() => this.#connect(), wait * 1000);
      };
    }

    #emit(frame) {
      if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(frame));
    }

    #ask(frame) {
      const requestId = "w" + ++this.#nextId;
      return new Promise((resolve) => {
        this.#waiting.set(requestId, resolve);
        this.#emit({ ...frame, requestId });
      });
    }

    #say() {
      const message = this.#input.value.trim();
      if (message === "" || this.#turn || !this.#session || this.#socket?.readyState !== WebSocket.OPEN) return;
      this.#input.value = "";
      this.#article("You", message);
      const requestId = "w" + ++this.#nextId;
      this.#turn = { requestId, article: this.#article(this.#agent, ""), text: "" };
      this.#turn.article.setAttribute("aria-busy", "true");
      this.#send.hidden = true;
      this.#stop.hidden = false;
      this.#status.textContent = "The answer is being written";
      this.#emit({ action: "send_message", requestId, sessionId: this.#session.sessionId, message });
    }

    #receive(event) {
      const resolve = this.#waiting.get(event.requestId);
      if (resolve) { this.#waiting.delete(event.requestId); return resolve(event); }
      const turn = this.#turn;
      if (!turn || event.requestId !== turn.requestId) return;
      switch (event.type) {
        case "stream_token": turn.text += event.token; this.#write(turn.article, turn.text); break;
        case "stream_chunk": {
          const call = event.data?.state?.rawResponse?.toolCall;
          if (call) this.#status.textContent = "Uses " + call.name;
          break;
        }
        case "write_confirmation_required":
          this.#question.textContent = event.data?.data?.actionDescription || "";
          this.#dialog.showModal();
          break;
        case "eventual_response": {
          const answer = event.data?.data || {};
          this.#write(turn.article, (answer.response?.responseParts || []).join("\n\n") || turn.text);
          this.#cite(turn.article, answer.citations || []);
          this.#end("The answer is complete");
          break;
        }
        case "cancelled": this.#note(turn.article, "Stopped."); this.#end("Stopped"); break;
        case "error":
          this.#note(turn.article, event.error?.message || "Something went wrong.");
          this.#alert.textContent = event.error?.message || "Something went wrong.";
          this.#end();
          break;
      }
    }

    #decide(approved) {
      this.#dialog.close();
      const turn = this.#turn;
      if (turn) this.#ask({ action: "confirm_tool_action", sessionId: this.#session.sessionId, approved });
      this.#input.focus();
    }

    // What was said while the connection was away is in the history.
    async #reload() {
      const reply = await this.#ask({ action: "get_conversation_messages", sessionId: this.#session.sessionId, limit: 50 });
      if (reply.type !== "immediate_response" || this.#turn) return;
      this.#log.replaceChildren();
      for (const message of [...reply.data.messages].reverse()) {
        this.#article(message.direction === "inbound" ? "You" : this.#agent, message.content.text || "");
      }
    }

    #article(who, text) {
      const article = make("article", {}, make("h3", {}, who), make("div", { class: "text", dir: "auto" }));
      this.#log.append(article);
      this.#write(article, text);
      return article;
    }

    #write(article, text) {
      const atEnd = this.#log.scrollHeight - this.#log.scrollTop - this.#log.clientHeight < 80;
      article.querySelector(".text").textContent = text;
      if (atEnd) this.#log.scrollTop = this.#log.scrollHeight;
    }

    #note(article, text) { article.append(make("p", { class: "note" }, text)); }

    #cite(article, citations) {
      if (citations.length === 0) return;
      const entry = (citation) => make("li", { title: citation.snippet || "" }, isWeb(citation.url)
        ? make("a", { href: citation.url, target: "_blank", rel: "noopener noreferrer" }, citation.title)
        : citation.title);
      article.append(make("ol", { "aria-label": "Sources" }, ...citations.map(entry)));
    }

    #end(status = "") {
      this.#turn?.article.removeAttribute("aria-busy");
      this.#turn = null;
      this.#send.hidden = false;
      this.#stop.hidden = true;
      this.#status.textContent = status;
      if (this.#dialog.open) this.#dialog.close();
    }

    #fail(text) { this.#alert.textContent = text; this.#status.textContent = text; }
  }

  if (!customElements.get("smooth-agent-chat")) customElements.define("smooth-agent-chat", SmoothAgentChat);
})();
