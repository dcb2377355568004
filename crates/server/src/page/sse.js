// Reads server-sent events from a response's body. Knows nothing of chats.

const LONGEST_LINE = 16 * 1024 * 1024;

/**
 * Yields `{ data }` for every event and `{ comment }` for every comment line. Lines may end with LF, CRLF or CR, and
 * bytes may arrive cut anywhere, within a character too. An event that the stream's end cuts off is not yielded.
 */
export async function* events(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  let data = [];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      rest += decoder.decode(value, { stream: !done });
      // A CR at the end may be the first half of a CRLF.
      const complete = rest.endsWith("\r") && !done ? rest.slice(0, -1) : rest;
      const lines = complete.split(/\r\n|\n|\r/);
      rest = lines.pop() + rest.slice(complete.length);
      if (rest.length > LONGEST_LINE) throw new Error("a line of the answer is too long");
      for (const line of lines) {
        if (line === "") {
          if (data.length > 0) yield { data: data.join("\n") };
          data = [];
        } else if (line.startsWith(":")) {
          yield { comment: line.slice(1).trim() };
        } else if (line.startsWith("data:")) {
          data.push(line.slice(line[5] === " " ? 6 : 5));
        }
      }
      if (done) return;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
