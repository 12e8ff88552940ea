import assert from 'node:assert/strict';
import { PluginState } from '../../../../src/docker/plugin/state.js';
import { isOverlayError } from '../../../../src/errors.js';
import { FakeFiles } from '../../../support/fake-files.js';

const FILE = '/state/docker-networks.json';

const network = {
  id: 'n1',
  parent: 'eth0',
  isInternal: false,
  options: { type: 'macvlan', mode: 'bridge', 'host-access': 'true', probe: 'on' },
  subnets: [{ subnet: '10.10.10.0/24', gateway: '10.10.10.1' }],
};

describe('the state of the plugin', () => {
  const load = async (text: string): Promise<FakeFiles> => {
    const files = new FakeFiles();
    files.texts.set(FILE, text);
    await new PluginState({ directory: '/state', files }).load();
    return files;
  };

  it('begins empty where there is no file', async () => {
    const state = new PluginState({ directory: '/state', files: new FakeFiles() });
    await state.load();
    assert.deepEqual(state.contents, { networks: [], endpoints: [], pools: [] });
  });

  it('is read from its file', async () => {
    await load(JSON.stringify({ version: 1, networks: [network], endpoints: [], pools: [] }));
  });

  const broken: readonly (readonly [what: string, text: string])[] = [
    ['half a file', '{"version":1,"networks":[{'],
    ['a file of a later version', '{"version":2}'],
    ['a network without a parent', JSON.stringify({ version: 1, networks: [{ ...network, parent: undefined }] })],
    [
      'a network with an option that there is not',
      JSON.stringify({ version: 1, networks: [{ ...network, options: { colour: 'red' } }] }),
    ],
    ['an endpoint with half a MAC address', '{"version":1,"endpoints":[{"id":"e","networkId":"n","mac":"02:42"}]}'],
    ['a pool that is none', '{"version":1,"pools":["10.10.10.0/24"]}'],
  ];
  for (const [what, text] of broken) {
    it(`refuses ${what}, and leaves it as it is`, async () => {
      const files = new FakeFiles();
      files.texts.set(FILE, text);
      await assert.rejects(new PluginState({ directory: '/state', files }).load(), (error) =>
        isOverlayError(error, 'ERR_PLUGIN_STATE'),
      );
      assert.equal(files.texts.get(FILE), text);
    });
  }

  it('takes a change back that cannot be written', async () => {
    const files = new FakeFiles();
    const state = new PluginState({ directory: '/state', files });
    files.writeErrno = 'EROFS';
    const change = state.change((before) => ({ ...before, pools: ['-/10.10.10.0-24/10.10.10.0-24' as never] }));
    await assert.rejects(change, (error) => isOverlayError(error, 'ERR_PLUGIN_STATE'));
    assert.deepEqual(state.contents.pools, []);
  });
});
