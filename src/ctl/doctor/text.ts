/** Entries that a finding lists by name. */
const MAX_LISTED = 8;

/** The first entries of a list, and how many more there are. */
export function someOf(texts: readonly string[], most = MAX_LISTED): string {
  const more = texts.length - most;
  return texts.slice(0, most).join('; ') + (more > 0 ? `; and ${more} more` : '');
}

/** A text as one word of a shell. */
export function shellWord(text: string): string {
  return /^[\w.:/-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

/** The commands that remove a network of Docker; Docker itself refuses to while containers are in it. */
export function networkRemoval(id: string): string {
  const short = id.slice(0, 12);
  return `for c in $(docker ps -aq --filter network=${short}); do docker network disconnect --force ${short} $c; done; docker network rm ${short}`;
}
