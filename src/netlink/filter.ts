import { ETH_P_ALL, TC_H, TCA, TCA_BPF, TCA_BPF_FLAG_ACT_DIRECT } from './constants.js';
import { AttributeTable, type MessageReader, type MessageWriter } from './message.js';

/** Which way frames go through a device, as the host sees it. */
type Direction = 'ingress' | 'egress';

/** A program that decides which frames pass a device, in the place where ours are. */
export interface FilterInfo {
  readonly index: number;
  readonly direction: Direction;
  /** `struct sock_filter[]`; empty for a filter of another kind. */
  readonly program: Uint8Array;
}

/** A filter to delete. */
export type FilterIdentity = Pick<FilterInfo, 'index' | 'direction'>;

/** The one place in each direction that is ours: before all others. */
const PRIORITY = 1;
const HANDLE = 1;

const KIND = 'bpf';

const PARENTS: Readonly<Record<Direction, number>> = { ingress: TC_H.INGRESS, egress: TC_H.EGRESS };

const DIRECTIONS: readonly Direction[] = ['ingress', 'egress'];

/** Bytes of one instruction (`struct sock_filter`). */
const INSTRUCTION = 8;

/** `sizeof(struct tcmsg)`: family u8, padding (3), index, handle, parent, info. */
const HEADER = 20;

function writeHeader(
  writer: MessageWriter,
  index: number,
  handle: number,
  parent: number,
  info: number,
): MessageWriter {
  return writer.u8(0).u8(0).u16(0).u32(index).u32(handle).u32(parent).u32(info);
}

/** `tcm_info` of a filter: priority, then the protocol in network order. */
const INFO = ((PRIORITY << 16) | (ETH_P_ALL << 8)) >>> 0;

/** Body of an `RTM_NEWQDISC` request for what filters hang on. */
export function writeClsact(writer: MessageWriter, index: number): void {
  writeHeader(writer, index, TC_H.CLSACT_HANDLE, TC_H.CLSACT, 0).attributeText(TCA.KIND, 'clsact');
}

/** Body of an `RTM_NEWTFILTER` request. */
export function writeFilter(writer: MessageWriter, { index, direction, program }: FilterInfo): void {
  writeHeader(writer, index, HANDLE, PARENTS[direction], INFO).attributeText(TCA.KIND, KIND);
  writer.nested(TCA.OPTIONS, () => {
    writer.attributeU16(TCA_BPF.OPS_LEN, program.length / INSTRUCTION);
    writer.attributeBytes(TCA_BPF.OPS, program);
    writer.attributeU32(TCA_BPF.FLAGS, TCA_BPF_FLAG_ACT_DIRECT);
  });
}

/** Body of an `RTM_DELTFILTER` request. */
export function writeFilterIdentity(writer: MessageWriter, { index, direction }: FilterIdentity): void {
  writeHeader(writer, index, HANDLE, PARENTS[direction], INFO).attributeText(TCA.KIND, KIND);
}

/** Body of an `RTM_GETTFILTER` dump. */
export function writeFilterList(writer: MessageWriter, { index, direction }: FilterIdentity): void {
  writeHeader(writer, index, 0, PARENTS[direction], 0);
}

const table = new AttributeTable(TCA.MAX);
const optionsTable = new AttributeTable(TCA_BPF.MAX);

/** Index of the device that a message about a filter or a queueing discipline is about. */
export function readFilterDevice(reader: MessageReader): number {
  return reader.u32(4);
}

/**
 * Reads an `RTM_NEWTFILTER` message.
 *
 * @returns undefined for a filter in any other place than ours.
 */
export function readFilter(reader: MessageReader): FilterInfo | undefined {
  const direction = DIRECTIONS.find((each) => PARENTS[each] === reader.u32(12));
  // The kernel lists a priority by itself, without a handle, before the filters in it.
  if (direction === undefined || reader.u32(8) !== HANDLE || reader.u32(16) >>> 16 !== PRIORITY) return undefined;
  const attributes = table.parse(reader, reader.start + HEADER, reader.end);
  const options = attributes.text(TCA.KIND) === KIND ? attributes.nested(TCA.OPTIONS, optionsTable) : undefined;
  const isDirect = options?.u32(TCA_BPF.FLAGS) === TCA_BPF_FLAG_ACT_DIRECT;
  const { offset, length } = options?.range(TCA_BPF.OPS) ?? { offset: 0, length: 0 };
  return {
    index: readFilterDevice(reader),
    direction,
    program: isDirect ? reader.bytes.slice(offset, offset + length) : new Uint8Array(),
  };
}
