import assert from 'node:assert/strict';
import os from 'node:os';
import { Netns, deleteNamespaces, namePrefix } from '../support/netns.js';

describe('the guest’s kernel', () => {
  const name = `${namePrefix(0)}-kernel`;
  let netns: Netns;

  before(async () => {
    [netns] = (await Netns.create([name])) as [Netns];
    await netns.ip(['link add eth0 type dummy']);
  });

  after(() => {
    deleteNamespaces([name]);
  });

  it('is Debian’s', () => {
    assert.match(os.release(), /^\d+\.\d+\.\d+-\d+-amd64$/);
  });

  // What it is booted for: devices that kernels made for containers or small machines leave out.
  for (const [kind, words] of Object.entries({
    ipvlan: 'link eth0 type ipvlan mode l3s',
    vlan: 'link eth0 type vlan id 20',
    wireguard: 'type wireguard',
    ipip: 'type ipip local 192.0.2.11',
  })) {
    it(`makes ${kind} devices, loading what that takes by itself`, async () => {
      await netns.ip([`link add probe0 ${words}`]);
      const [device] = await netns.ipJson(['-d', 'link', 'show', 'dev', 'probe0']);
      assert.equal((device?.linkinfo as { info_kind?: string } | undefined)?.info_kind, kind);
      await netns.ip(['link del probe0']);
    });
  }
});
