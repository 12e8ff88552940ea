import { ip } from '../../support/builders.js';
import { FakeKernel } from '../../support/fake-kernel.js';
import { CONTRACT_SYSCTL, type KernelFixture, describeKernelContract } from '../../support/kernel-contract.js';
import { describeWireguardContract } from '../../support/wireguard-contract.js';

function open(): KernelFixture {
  const kernel = new FakeKernel();
  const eth0 = kernel.addLink({ name: 'eth0', isUp: true });
  kernel.putAddress(eth0.index, ip('192.0.2.1'), 24);
  kernel.sysctls.set(CONTRACT_SYSCTL, '0');
  return { kernel, eth0 };
}

function close({ kernel }: KernelFixture): void {
  kernel.close();
}

describeKernelContract('FakeKernel', open, close);
describeWireguardContract('FakeKernel', open, close);
