/** What is mutated, and against which suites. All are patterns, each a path below the root in which `*` stands for a part of a name. */
export interface Target {
  readonly files: readonly string[];
  /** Patterns of test files; for C++ suites below `test/native`. */
  readonly tests: readonly string[];
}

const LEASE = 'test/unit/lease';

/** The most important first: what loses a lease or a packet when it is wrong. */
export const TARGETS: readonly Target[] = [
  { files: ['src/lease/decide.ts'], tests: [`${LEASE}/decide.test.ts`, `${LEASE}/keeper.test.ts`] },
  { files: ['src/lease/keeper.ts'], tests: [`${LEASE}/keeper.test.ts`] },
  { files: ['src/lease/allocator.ts'], tests: [`${LEASE}/allocator.test.ts`] },
  {
    files: ['src/etcd/store.ts'],
    tests: ['store', 'follow', 'lost-answers', 'unused-etcd-leases'].map((name) => `test/unit/etcd/${name}.test.ts`),
  },
  { files: ['src/lease/peers.ts'], tests: [`${LEASE}/peers.test.ts`] },
  { files: ['src/reconcile/diff.ts'], tests: ['test/unit/reconcile/*.test.ts'] },
  { files: ['src/reconcile/reconciler.ts'], tests: ['test/unit/reconcile/*.test.ts'] },
  {
    files: ['src/reconcile/kinds/*.ts', 'src/reconcile/kinds/links/*.ts'],
    // What they have the kernel do, only the kernel can judge.
    tests: ['test/unit/reconcile/*.test.ts', 'test/host/kernel-contract.test.ts'],
  },
  { files: ['src/backend/overlay-state.ts'], tests: ['test/unit/backend/*.test.ts'] },
  { files: ['src/underlay/select.ts'], tests: ['test/unit/underlay/*.test.ts'] },
  { files: ['src/dataplane/forwarding-table.ts'], tests: ['test/unit/dataplane/*.test.ts'] },
  {
    files: ['src/ctl/doctor/checks/*.ts'],
    tests: ['doctor*', 'clock-ahead', 'hostile-text'].map((name) => `test/unit/ctl/${name}.test.ts`),
  },
  { files: ['native/core/offload/segmenter.cc'], tests: ['offload/segmenter_test.cc'] },
  { files: ['native/core/offload/coalescer.cc'], tests: ['offload/coalescer_test.cc'] },
  { files: ['native/core/peers/peer_table.cc'], tests: ['peers/peer_table_test.cc'] },
];
