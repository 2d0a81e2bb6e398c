// What a page shows of the hub: read when it opens, and again soon after anybody has changed it.
import { useEffect, useRef, useState } from "./bound.js";
import { get } from "./api.js";
import { listen } from "./live.js";

const GATHER_MS = 500; // what comes within this time is read in one go

// Calls `read` soon after news of this topic that concern it, and where some may be missed; returns how to end that.
export function soonAfter(topic, concerns, read) {
  let timer = null;
  const soon = () => { timer ??= setTimeout(() => { timer = null; read(); }, GATHER_MS); };
  const ends = [listen(topic, (news) => concerns(news) && soon()), listen("reread", soon), listen("begun", soon)];
  return () => { clearTimeout(timer); for (const end of ends) end(); };
}

// What the hub answers at `path` (none: nothing is asked); `kinds` are those of the audit log after which it is another.
export function useReading(path, kinds) {
  const [found, set] = useState(null);
  const [problem, setProblem] = useState(null);
  const asked = useRef(0);
  const shown = useRef(0);
  const read = async () => {
    asked.current += 1;
    const mine = asked.current;
    // Answers may overtake each other: an older one is of no use any more.
    const show = (answer, trouble) => {
      if (mine < shown.current) return;
      shown.current = mine;
      if (answer) set(answer);
      setProblem(trouble);
    };
    await get(path).then((answer) => show(answer, null), (failed) => show(null, failed.message));
  };
  useEffect(() => {
    if (!path) return undefined;
    read();
    return soonAfter("audit", ({ what }) => kinds.includes(what), read);
  }, [path]);
  return { found, problem, read };
}
