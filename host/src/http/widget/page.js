{
  const token = /*TOKEN*/;
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  const query = token === "" ? "" : "?token=" + encodeURIComponent(token);
  const chat = document.createElement("smooth-agent-chat");
  chat.setAttribute("endpoint", scheme + "//" + location.host + "/ws" + query);
  chat.setAttribute("agent-id", "6f1d2a80-0000-4000-8000-000000000001");
  chat.setAttribute("agent-name", /*NAME*/);
  chat.setAttribute("mode", "fullpage");
  chat.setAttribute("start-open", "");
  document.body.append(chat);
}
