import { OverlayError } from '../../src/errors.js';
import type { ContainerFirewall, ContainerFirewallStatus } from '../../src/firewall/containers/container-firewall.js';
import type { ContainerRuleInput } from '../../src/firewall/containers/container-rules.js';

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
    const repaired = {
      'chain-missing': 0,
      'chain-changed': 0,
      'jump-missing': 0,
      'jump-duplicate': 0,
      'table-missing': 0,
      'table-changed': 0,
    };
    return {
      table: 'inet tsflannel-test',
      isInPlace: !this.isRefusing && this.input !== undefined,
      repaired,
      lastError: undefined,
    };
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
