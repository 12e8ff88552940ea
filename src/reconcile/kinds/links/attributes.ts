import type { IpAddress } from '../../../ip/address.js';
import type { MacAddress } from '../../../ip/mac.js';
import { isSame } from '../../../ip/same.js';
import { isIdentical } from '../../equality.js';

/** The MTU, as an attribute of devices of whatever kind. */
export const mtuAttribute = {
  isSame: isIdentical,
  isOn: (mtu: number, device: { readonly mtu: number }) => device.mtu === mtu,
  make: (mtu: number) => ({ mtu }),
  change: (mtu: number) => ({ mtu }),
};

/** The MAC address, as an attribute of devices that are given one. */
export const macAttribute = {
  isSame: isIdentical,
  isOn: (mac: MacAddress, device: { readonly mac: MacAddress | undefined }) => device.mac === mac,
  make: (mac: MacAddress) => ({ mac }),
  change: (mac: MacAddress) => ({ mac }),
  losesNeighbours: true,
};

/** The device that one lies on, as an attribute of devices that lie on another. */
export const lowerAttribute = {
  isSame: isIdentical,
  isOn: (lowerIndex: number, device: { readonly lowerIndex: number }) => device.lowerIndex === lowerIndex,
  make: (lowerIndex: number) => ({ lowerIndex }),
};

/** The outer source address, as an attribute of devices that encapsulate. */
export const localAttribute = {
  isSame: isSame<IpAddress>,
  isOn: (local: IpAddress, { details }: { readonly details: { readonly local: IpAddress | undefined } }) =>
    isSame(details.local, local),
  make: (local: IpAddress) => ({ local }),
};
