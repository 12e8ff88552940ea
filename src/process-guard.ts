/** Exit code for a defect of the program itself (EX_SOFTWARE of sysexits.h). */
const DEFECT_EXIT_CODE = 70;

/** What to do about a defect. */
export const DEFECT_HINT = 'this is a defect of tsflannel: report it with this line and the version';

/**
 * Has an error that nothing has caught told before it ends the process: what is in memory cannot be trusted any more.
 *
 * @param tell - writes one line; what it throws is passed over.
 */
export function guardProcess(tell: (error: unknown) => void): void {
  process.removeAllListeners('uncaughtException');
  // Rejections that nobody handles come this way, too.
  process.on('uncaughtException', (error: unknown) => {
    try {
      tell(error);
    } finally {
      process.exit(DEFECT_EXIT_CODE);
    }
  });
}

/** The text of an error with the place it came from. */
export function withStack(error: unknown): string {
  return error instanceof Error ? (error.stack ?? String(error)) : String(error);
}
