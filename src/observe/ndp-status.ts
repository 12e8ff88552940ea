/** What this host answers for on behalf of containers behind Docker's bridges. */
export interface NdpProxyStatus {
  /** Devices on which it answers, each with the subnets of the bridges behind it. */
  readonly uplinks: readonly { readonly device: string; readonly subnets: readonly string[] }[];
  /** Addresses that are answered for. */
  readonly addresses: number;
  /** Questions for addresses that nobody was known to have. */
  readonly questions: number;
  /** Those that were not passed on, since there were too many. */
  readonly droppedQuestions: number;
  /** Addresses that were not taken, since there are too many. */
  readonly refusedAddresses: number;
  /** Why not everything is as it should be; null if nothing is known to be wrong. */
  readonly problem: string | null;
}
