import { NHA } from './constants.js';
import { AttributeTable, type MessageReader } from './message.js';

/** `sizeof(struct nhmsg)` */
const HEADER = 8;

const table = new AttributeTable(NHA.MAX);

/**
 * Reads the id in an `RTM_NEWNEXTHOP` or `RTM_DELNEXTHOP` message.
 *
 * @returns undefined for a message without one.
 */
export function readNexthopId(reader: MessageReader): number | undefined {
  return table.parse(reader, reader.start + HEADER, reader.end).u32(NHA.ID);
}
