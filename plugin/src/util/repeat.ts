/** What is called with one interval. */
interface Group {
  readonly members: Map<symbol, { readonly work: () => void; readonly keepAlive: boolean }>;
  readonly timer: NodeJS.Timeout;
}

const groups = new Map<number, Group>();

/**
 * Calls `work` every `ms` milliseconds. What has the same interval shares one timer: who looks at several things twenty times a
 * second would else be woken for each by itself, which is most of what a process costs that has nothing to do.
 * @param work an exception is the process's: nobody catches it
 * @param keepAlive the process does not end before this does
 * @returns ends it; more than once does nothing
 */
export function repeat(ms: number, work: () => void, keepAlive: boolean): () => void {
  let group = groups.get(ms);
  if (group === undefined) {
    const members: Group['members'] = new Map();
    const timer = setInterval(() => {
      // Who was ended by one before it in the turn is called no more.
      for (const id of [...members.keys()]) members.get(id)?.work();
    }, ms);
    group = { members, timer };
    groups.set(ms, group);
  }
  const joined = group;
  const id = Symbol('repeat');
  joined.members.set(id, { work, keepAlive });
  hold(joined);
  return () => {
    if (!joined.members.delete(id)) return;
    if (joined.members.size > 0) {
      hold(joined);
    } else {
      clearInterval(joined.timer);
      groups.delete(ms);
    }
  };
}

function hold({ members, timer }: Group): void {
  if ([...members.values()].some(({ keepAlive }) => keepAlive)) timer.ref();
  else timer.unref();
}
