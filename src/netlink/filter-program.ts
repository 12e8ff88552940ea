import os from 'node:os';
import { type MacAddress, macToBytes } from '../ip/mac.js';
import { TC_ACT } from './constants.js';

/** Bytes of one instruction (`struct sock_filter`). */
const INSTRUCTION = 8;

/** `BPF_MAXINSNS`: what the kernel takes of one program. */
const MAX_INSTRUCTIONS = 4096;

/** Instructions of each station. */
const PER_STATION = 5;

/** How many stations a program can tell apart. */
export const MAX_STATIONS = Math.floor((MAX_INSTRUCTIONS - 1) / PER_STATION);

/** Instructions of classic BPF (`uapi/linux/filter.h`). */
const LOAD_HALF = 0x28;
const LOAD_WORD = 0x20;
const JUMP_IF_EQUAL = 0x15;
const RETURN = 0x06;

const isLittle = os.endianness() === 'LE';

/**
 * A program of classic BPF that tells whether a frame is one of these stations', by its source or destination.
 *
 * @param direction - `ingress`: the source counts; `egress`: the destination.
 * @param stations - at most {@link MAX_STATIONS}; those beyond are not let through.
 * @returns `struct sock_filter[]` whose result is the fate of the packet (`TC_ACT_*`); the same for the same stations.
 */
export function stationProgram(direction: 'ingress' | 'egress', stations: readonly MacAddress[]): Uint8Array {
  const at = direction === 'ingress' ? 6 : 0; // destination, source, type
  const known = [...new Set(stations)].sort().slice(0, MAX_STATIONS);
  const program = new DataView(new ArrayBuffer((known.length * PER_STATION + 1) * INSTRUCTION));
  let line = 0;
  const put = (code: number, jumpTrue: number, jumpFalse: number, value: number): void => {
    const offset = line++ * INSTRUCTION;
    program.setUint16(offset, code, isLittle);
    program.setUint8(offset + 2, jumpTrue);
    program.setUint8(offset + 3, jumpFalse);
    program.setUint32(offset + 4, value, isLittle);
  };
  for (const mac of known) {
    const bytes = new DataView(macToBytes(mac).buffer);
    // The last four bytes first: in them the addresses of containers differ.
    put(LOAD_WORD, 0, 0, at + 2);
    put(JUMP_IF_EQUAL, 0, 3, bytes.getUint32(2));
    put(LOAD_HALF, 0, 0, at);
    put(JUMP_IF_EQUAL, 0, 1, bytes.getUint16(0));
    put(RETURN, 0, 0, TC_ACT.OK);
  }
  put(RETURN, 0, 0, TC_ACT.SHOT);
  return new Uint8Array(program.buffer);
}

/** Whether two programs are the same, byte by byte. */
export function isSameProgram(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, index) => byte === b[index]);
}
