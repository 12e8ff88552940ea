/**
 * Undoing what a test or the demo did to the machine, on every way out: return, throw, `process.exit`, Ctrl-C, SIGTERM.
 *
 * Actions are synchronous, because nothing else still runs while a process exits; they run in reverse order of
 * registration, each exactly once.
 */
const actions = new Set<() => void>();
let isArmed = false;

/**
 * Registers an action for the end of the process.
 *
 * @returns a function that withdraws it; call it once the thing is undone in the normal way.
 */
export function onExit(action: () => void): () => void {
  arm();
  actions.add(action);
  return () => {
    actions.delete(action);
  };
}

function arm(): void {
  if (isArmed) return;
  isArmed = true;
  process.on('exit', runAll);
  for (const [signal, number] of [
    ['SIGHUP', 1],
    ['SIGINT', 2],
    ['SIGTERM', 15],
  ] as const) {
    // Prepended, so that a test runner's own handler, which waits for the running test, does not come first.
    process.prependListener(signal, () => {
      runAll();
      process.exit(128 + number);
    });
  }
}

function runAll(): void {
  for (const action of [...actions].reverse()) {
    actions.delete(action);
    try {
      action();
    } catch (error) {
      process.stderr.write(`cleanup: ${error instanceof Error ? error.message : String(error)}\n`);
    }
  }
}
