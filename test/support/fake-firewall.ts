import { OverlayError } from '../../src/errors.js';
import type { FirewallSpec, FirewallStatus, RuleKeeper } from '../../src/firewall/firewall.js';

/** A packet filter in memory: it knows which rules it was asked for. */
export class FakeFirewall implements RuleKeeper {
  spec: FirewallSpec | undefined;
  /** While true, rules cannot be written. */
  isRefusing = false;

  apply(spec: FirewallSpec): Promise<void> {
    if (this.isRefusing) return Promise.reject(new OverlayError('ERR_FIREWALL', 'cannot write rules: EPERM'));
    this.spec = spec;
    return Promise.resolve();
  }

  status(): FirewallStatus {
    const repaired = {
      'chain-missing': 0,
      'chain-changed': 0,
      'jump-missing': 0,
      'jump-duplicate': 0,
      'table-missing': 0,
      'table-changed': 0,
    };
    return { mode: this.spec?.mode, isInPlace: this.spec !== undefined, repaired, lastError: undefined };
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
