import { ip } from '../../support/builders.js';
import { FakeKernel } from '../../support/fake-kernel.js';
import { CONTRACT_SYSCTL, describeKernelContract } from '../../support/kernel-contract.js';

describeKernelContract(
  'FakeKernel',
  () => {
    const kernel = new FakeKernel();
    const eth0 = kernel.addLink({ name: 'eth0', isUp: true });
    kernel.putAddress(eth0.index, ip('192.0.2.1'), 24);
    kernel.sysctls.set(CONTRACT_SYSCTL, '0');
    return { kernel, eth0 };
  },
  ({ kernel }) => {
    kernel.close();
  },
);
