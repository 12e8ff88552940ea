import type { InterfaceRegister } from '../../src/container/addresses.js';
import type { IpAddress } from '../../src/ip/address.js';
import type { MacAddress } from '../../src/ip/mac.js';

/** Interfaces of containers in memory, each with one address; they outlive crashes, as on a disk. */
export class FakeRegister implements InterfaceRegister {
  id = 'register';
  /** By address and MAC address. */
  readonly #interfaces = new Map<string, 'joined' | 'made'>();

  set(address: IpAddress, mac: MacAddress, state: 'joined' | 'made' | undefined): void {
    const key = `${address.toString()} ${mac}`;
    if (state === undefined) this.#interfaces.delete(key);
    else this.#interfaces.set(key, state);
  }

  interfaceOf(address: IpAddress, mac: MacAddress | undefined): 'joined' | 'made' | undefined {
    return this.#interfaces.get(`${address.toString()} ${mac ?? ''}`);
  }

  forget(address: IpAddress, mac: MacAddress | undefined): Promise<void> {
    if (mac !== undefined && this.interfaceOf(address, mac) === 'made') this.set(address, mac, undefined);
    return Promise.resolve();
  }
}
