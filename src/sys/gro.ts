import koffi from 'koffi';
import { SYS, close, ioctl, socket } from './libc.js';

const SIOCETHTOOL = 0x8946;
const ETHTOOL_GGRO = 0x2b;
const ETHTOOL_SGRO = 0x2c;
/** `struct ifreq`: the name, then the pointer. */
const NAME_BYTES = 16;
const REQUEST_BYTES = 40;

/** Whether a device merges the packets that it receives (generic receive offload). @returns 0, 1, or minus errno. */
export function readGro(device: string): number {
  return ask(device, ETHTOOL_GGRO, 0);
}

/** @returns 0 or more, or minus errno. */
export function setGro(device: string, isOn: boolean): number {
  return ask(device, ETHTOOL_SGRO, Number(isOn));
}

/** @returns the number that the kernel leaves in `struct ethtool_value`, or minus errno. */
function ask(device: string, command: number, value: number): number {
  const fd = socket(SYS.AF_INET, SYS.SOCK_DGRAM, 0);
  if (fd < 0) return fd;
  const argument = Uint32Array.of(command, value);
  const request = new Uint8Array(REQUEST_BYTES);
  request.set(new TextEncoder().encode(device).subarray(0, NAME_BYTES - 1));
  new BigUint64Array(request.buffer, NAME_BYTES, 1)[0] = koffi.address(argument);
  const result = ioctl(fd, SIOCETHTOOL, request);
  close(fd);
  return result < 0 ? result : (argument[1] ?? 0);
}
