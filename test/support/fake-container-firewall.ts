import { OverlayError } from '../../src/errors.js';
import type { ContainerFirewall, ContainerFirewallStatus } from '../../src/firewall/containers/container-firewall.js';
import type { ContainerRuleInput } from '../../src/firewall/containers/container-rules.js';
import { noRepairs } from '../../src/firewall/rule-journal.js';

/** The packet filter for container networks in memory: it knows which rules it was asked for. */
export class FakeContainerFirewall implements Pick<ContainerFirewall, 'apply' | 'status' | 'close'> {
  input: ContainerRuleInput | undefined;
  /** Whether that was all that there was to know. */
  isProvisional = false;
  /** While true, rules cannot be written. */
  isRefusing = false;

  apply(input: ContainerRuleInput | undefined, { isProvisional = false } = {}): Promise<void> {
    if (this.isRefusing) return Promise.reject(new OverlayError('ERR_FIREWALL', 'cannot write rules: EPERM'));
    this.input = input;
    this.isProvisional = isProvisional;
    return Promise.resolve();
  }

  status(): ContainerFirewallStatus {
    return {
      table: 'inet tsflannel-test',
      isInPlace: !this.isRefusing && this.input !== undefined,
      repaired: noRepairs(),
      lastError: undefined,
    };
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
