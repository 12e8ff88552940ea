import type { Clock } from '../clock.js';
import {
  type PreviousSubnetEnv,
  type SubnetEnv,
  formatSubnetEnv,
  readSubnetEnv,
  writeSubnetEnv,
} from '../docker/subnet-env.js';
import { describeError } from '../errors.js';
import type { Prefix } from '../ip/prefix.js';
import type { LeaseSubnets } from '../lease/lease.js';
import type { Logger } from '../log.js';
import { type TextFiles, systemFiles } from '../sys/text-files.js';

/** Docker reads its bridge's address and MTU at its start only. */
const RESTART_DOCKER = 'systemctl restart docker';

const NOTHING: PreviousSubnetEnv = {
  network: undefined,
  subnet: undefined,
  ipv6Network: undefined,
  ipv6Subnet: undefined,
  mtu: undefined,
  problems: [],
};

/** What containers have not followed yet. */
export interface PendingRestart {
  readonly subnet: Prefix;
  readonly mtu: number;
  /** Whether it differs from what they have. */
  readonly isMtuNew: boolean;
  /** The IPv6 subnet that containers may have still. */
  readonly formerIpv6Subnet: Prefix | undefined;
  /** What changed and the command that makes them follow, as one sentence. */
  readonly hint: string;
}

/** The file that tells Docker and the CNI plugin subnet and MTU: read once, written whenever it has to say something else. */
export class SubnetFile {
  private previous = NOTHING;
  private written: { readonly text: string; readonly mtu: number; readonly atMs: number } | undefined;
  private error: string | undefined;
  private pending: PendingRestart | undefined;

  constructor(
    readonly path: string,
    private readonly clock: Clock,
    private readonly log: Logger,
    private readonly files: TextFiles = systemFiles,
  ) {}

  /**
   * Reads what an earlier process left.
   *
   * @throws {@link OverlayError} `ERR_SUBNET_FILE`
   */
  async load(): Promise<void> {
    this.previous = (await readSubnetEnv(this.path, this.files)) ?? NOTHING;
    for (const detail of this.previous.problems) {
      this.log.warn('value in subnet file ignored', { file: this.path, detail });
    }
  }

  /** The subnets that an earlier process of this host had. */
  get previousSubnets(): Partial<LeaseSubnets> {
    const { subnet, ipv6Subnet } = this.previous;
    return { ...(subnet === undefined ? {} : { subnet }), ...(ipv6Subnet === undefined ? {} : { ipv6Subnet }) };
  }

  /** The networks that an earlier process of this host belonged to. */
  get previousNetworks(): readonly Prefix[] {
    return [this.previous.network, this.previous.ipv6Network].filter((network) => network !== undefined);
  }

  /** Bytes of the largest packet of a container, as written by this process or, before that, by an earlier one. */
  get containerMtu(): number | undefined {
    return this.previous.mtu;
  }

  /** Bytes of the largest packet of a container, as written by this process. */
  get mtu(): number | undefined {
    return this.written?.mtu;
  }

  /** What Docker has to follow, undefined if nothing. */
  get pendingRestart(): PendingRestart | undefined {
    return this.pending;
  }

  /** Docker runs with what the file says. */
  noteRestart(): void {
    if (this.pending === undefined) return;
    this.log.info('containers follow subnet file', { subnet: this.pending.subnet.toString(), mtu: this.pending.mtu });
    this.pending = undefined;
  }

  get status(): { readonly path: string; readonly writtenAt: string | null; readonly error: string | null } {
    const { path, written, error } = this;
    return {
      path,
      writtenAt: written === undefined ? null : new Date(written.atMs).toISOString(),
      error: error ?? null,
    };
  }

  /**
   * Writes the file if it says something else now.
   *
   * @throws {@link OverlayError} `ERR_SUBNET_FILE`, retryable
   */
  async update(env: SubnetEnv): Promise<void> {
    const text = formatSubnetEnv(env);
    if (text === this.written?.text) return;
    try {
      await writeSubnetEnv(this.path, env, this.files);
    } catch (error) {
      this.error = describeError(error);
      throw error;
    }
    const { lease, mtu } = env;
    this.error = undefined;
    this.written = { text, mtu, atMs: this.clock.wallMs() };
    this.log.info('subnet file written', {
      file: this.path,
      subnet: lease.subnet.toString(),
      ipv6Subnet: lease.ipv6Subnet?.toString(),
      mtu,
    });
    this.tellDocker(lease, mtu);
  }

  private tellDocker({ subnet, ipv6Subnet }: LeaseSubnets, mtu: number): void {
    const before = this.previous;
    this.previous = { ...before, subnet, ipv6Subnet, mtu };
    if (before.subnet === undefined || before.mtu === undefined) return;
    const changes: string[] = [];
    if (!subnet.equals(before.subnet)) changes.push(`subnet ${before.subnet.toString()} → ${subnet.toString()}`);
    const isIpv6New = before.ipv6Subnet !== undefined && !before.ipv6Subnet.equals(ipv6Subnet);
    if (isIpv6New) changes.push(`IPv6 subnet ${before.ipv6Subnet.toString()} → ${ipv6Subnet?.toString() ?? 'none'}`);
    if (mtu !== before.mtu) changes.push(`MTU ${before.mtu} → ${mtu}`);
    if (changes.length === 0) return;
    const detail = changes.join(', ');
    const isMtuNew = mtu !== before.mtu || this.pending?.isMtuNew === true;
    const formerIpv6Subnet = isIpv6New ? before.ipv6Subnet : this.pending?.formerIpv6Subnet;
    this.pending = { subnet, mtu, isMtuNew, formerIpv6Subnet, hint: `${detail}: ${RESTART_DOCKER}` };
    this.log.warn('containers need a restart of Docker', { detail, file: this.path, hint: RESTART_DOCKER });
  }
}
