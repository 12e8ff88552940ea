import { createHash } from 'node:crypto';

/** Ends the id of what lasts as long as something is attached to it, and of the attachments. */
const ATTACHED = '.attach';

/** Ends the id of a network that an operator has made without Docker. */
const MADE = '.made';

/** An id is cut to so much before its ending: names of devices are made of its beginning. */
const KEPT = 57;

/*
 * Docker's ids are hexadecimal digits alone; the ids of what tsflannelctl makes end in a word behind a dot.
 */

/** The id of a network that is entered for attachments, where nobody has made it on this host. */
export function attachedNetworkId(title: string): string {
  return `${digest(title).slice(0, KEPT)}${ATTACHED}`;
}

/** The id of a network that an operator makes. */
export function madeNetworkId(title: string): string {
  return `${digest(title).slice(0, KEPT)}${MADE}`;
}

/** The id of an interface that is attached. */
export function attachmentId(owner: string): string {
  return `${digest(owner).slice(0, KEPT)}${ATTACHED}`;
}

/** The id under which a network of Docker's goes on for its attachments. */
export function inheritedNetworkId(id: string): string {
  return `${id.slice(0, KEPT)}${ATTACHED}`;
}

/** Whether a network lasts as long as something is attached to it; or whether an endpoint is attached. */
export function isAttached(id: string): boolean {
  return id.endsWith(ATTACHED);
}

/** Whether an operator has made the network without Docker. */
export function isMade(id: string): boolean {
  return id.endsWith(MADE);
}

/** Whether Docker does not know of it. */
export function isOwn(id: string): boolean {
  return isAttached(id) || isMade(id);
}

function digest(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}
