import assert from 'node:assert/strict';
import { SYSCTL, sysctlName } from '../../../src/netlink/sysctl-paths.js';

describe('names of kernel parameters', () => {
  for (const [path, name] of [
    [SYSCTL.ipv4Forwarding, 'net.ipv4.ip_forward'],
    [SYSCTL.reversePathFilter('eth0'), 'net.ipv4.conf.eth0.rp_filter'],
    [SYSCTL.reversePathFilter('eth0.100'), 'net.ipv4.conf.eth0/100.rp_filter'],
  ] as const) {
    it(`${path} is ${name} to sysctl(8)`, () => assert.equal(sysctlName(path), name));
  }
});
