import { OverlayError } from '../../src/errors.js';
import type { FirewallSpec, FirewallStatus, RuleKeeper } from '../../src/firewall/firewall.js';
import { noRepairs } from '../../src/firewall/rule-journal.js';

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
    return { mode: this.spec?.mode, isInPlace: this.spec !== undefined, repaired: noRepairs(), lastError: undefined };
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
