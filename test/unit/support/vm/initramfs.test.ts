import assert from 'node:assert/strict';
import { cpio, loadOrder } from '../../../support/vm/initramfs.js';

const DEPENDENCIES = [
  'kernel/fs/overlayfs/overlay.ko:',
  'kernel/fs/9p/9p.ko: kernel/net/9p/9pnet.ko kernel/fs/fscache/fscache.ko kernel/fs/netfs/netfs.ko',
  'kernel/fs/netfs/netfs.ko:',
  'kernel/fs/fscache/fscache.ko: kernel/fs/netfs/netfs.ko',
  'kernel/net/9p/9pnet.ko:',
  'kernel/drivers/virtio/virtio-pci.ko: kernel/drivers/virtio/virtio.ko',
  'kernel/drivers/virtio/virtio.ko:',
  '',
].join('\n');
const fileNames = (files: readonly string[]): string[] => files.map((file) => file.replace(/.*\//, ''));

describe('loadOrder', () => {
  it('puts each module after all that it needs', () => {
    assert.deepEqual(fileNames(loadOrder(DEPENDENCIES, ['9p'])), ['9pnet.ko', 'netfs.ko', 'fscache.ko', '9p.ko']);
  });

  it('lists a module once, however many need it', () => {
    const inOrder = fileNames(loadOrder(DEPENDENCIES, ['9p', 'netfs', 'overlay', '9p']));
    assert.deepEqual(inOrder, ['9pnet.ko', 'netfs.ko', 'fscache.ko', '9p.ko', 'overlay.ko']);
  });

  it('gives paths as modules.dep has them', () => {
    assert.deepEqual(loadOrder(DEPENDENCIES, ['overlay']), ['kernel/fs/overlayfs/overlay.ko']);
  });

  it('takes - and _ for the same', () => {
    assert.deepEqual(fileNames(loadOrder(DEPENDENCIES, ['virtio_pci'])), ['virtio.ko', 'virtio-pci.ko']);
  });

  it('says which module the kernel lacks', () => {
    assert.throws(() => loadOrder(DEPENDENCIES, ['overlay', 'btrfs']), /this kernel has no module btrfs/);
  });
});

describe('cpio', () => {
  /** Reads an archive as the kernel does: headers of 110 characters, names and contents up to multiples of four bytes. */
  function entriesOf(archive: Buffer): { name: string; mode: string; content: string }[] {
    const up = (length: number): number => Math.ceil(length / 4) * 4;
    const entries = [];
    for (let at = 0; at < archive.length;) {
      assert.equal(archive.toString('latin1', at, at + 6), '070701');
      const field = (index: number): number =>
        Number.parseInt(archive.toString('latin1', at + 6 + 8 * index, at + 14 + 8 * index), 16);
      const [size, nameSize] = [field(6), field(11)];
      const start = at + up(110 + nameSize);
      assert.equal(archive[at + 110 + nameSize - 1], 0);
      entries.push({
        name: archive.toString('latin1', at + 110, at + 110 + nameSize - 1),
        mode: field(1).toString(8),
        content: archive.toString('latin1', start, start + size),
      });
      at = start + up(size);
    }
    return entries;
  }

  it('holds programs, files and directories, and ends as the kernel expects', () => {
    const archive = cpio([
      { name: 'init', content: Buffer.from('#!/busybox sh\n'), isProgram: true },
      { name: 'modules' },
      { name: 'modules/a.ko', content: Buffer.from('12345') },
      { name: 'empty', content: Buffer.alloc(0) },
    ]);
    assert.deepEqual(entriesOf(archive), [
      { name: 'init', mode: '100755', content: '#!/busybox sh\n' },
      { name: 'modules', mode: '40755', content: '' },
      { name: 'modules/a.ko', mode: '100644', content: '12345' },
      { name: 'empty', mode: '100644', content: '' },
      { name: 'TRAILER!!!', mode: '100644', content: '' },
    ]);
  });

  it('lets each name and each content begin at a multiple of four bytes', () => {
    for (let length = 1; length <= 8; length++) {
      const [name, content] = ['n'.repeat(length), 'c'.repeat(9 - length)];
      assert.deepEqual(entriesOf(cpio([{ name, content: Buffer.from(content) }]))[0], {
        name,
        mode: '100644',
        content,
      });
    }
  });
});
