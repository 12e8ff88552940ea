import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { MAX_UDP_WORKERS } from '../../../src/config/flags.js';
import { INTERFACE_VERSION, PEER_COUNTERS, VERIFY_SOURCE } from '../../../src/dataplane/native.js';
import { KERNEL_COUNTERS, KERNEL_RECEIVERS } from '../../../src/dataplane/kernel-path.js';
import { ICMP_LIMITS } from '../../../src/dataplane/portable.js';
import { BATCH_BUCKETS, DROP_REASONS, ICMP_ERRORS, OFFLOADS, type TunnelEvent } from '../../../src/dataplane/tunnel.js';
import { PROBE_MARK } from '../../../src/reach/echo-socket.js';
import { sampleTunnelCounters } from '../../support/sample-status.js';

const sourceOf = (file: string): string => readFileSync(new URL(`../../../native/${file}`, import.meta.url), 'utf8');

/** What stands once between the two texts of a C++ file. */
function between(file: string, before: string, after: string): string {
  const parts = sourceOf(file).split(before);
  assert.equal(parts.length, 2, `${file} has "${before}" ${parts.length - 1} times`);
  const [text, ...rest] = parts[1]?.split(after) ?? [];
  assert.ok(text !== undefined && rest.length > 0, `${file} has no "${after}" after "${before}"`);
  return text;
}

/** The values of an enumeration in their order, without the one that is their number. */
function enumerators(file: string, declaration: string): string[] {
  const values = between(file, declaration, '}').replaceAll(/\/\/.*$/gm, '');
  assert.doesNotMatch(values, /=/, 'a value of its own would not be its place');
  const names = values.split(',').map((value) => value.trim());
  return names.filter((name) => name !== '' && name !== 'kNone');
}

/** The texts of an array in their order. */
function texts(file: string, declaration: string): string[] {
  return [...between(file, declaration, '}').matchAll(/"([^"]*)"/g)].map(([, text]) => text ?? '');
}

function constant(file: string, declaration: string): number {
  return Number(between(file, declaration, ';'));
}

/** `kTunBlocked` → `tun-blocked` */
const kebab = (name: string): string =>
  name
    .slice(1)
    .replaceAll(/(?!^)[A-Z]/g, '-$&')
    .toLowerCase();
/** `kTunBlocked` → `tunBlocked` */
const camel = (name: string): string => name.slice(1, 2).toLowerCase() + name.slice(2);
/** `tx_packets` → `txPackets` */
const fromSnake = (name: string): string => name.replaceAll(/_(\w)/g, (_, letter: string) => letter.toUpperCase());

/** Both languages number these by their order and show them by their names. */
describe('names and numbers shared with the addon', () => {
  it('are the same for the reasons of drops', () => {
    const file = 'core/packet/drop_reason.h';
    assert.deepEqual(texts(file, 'kDropReasonNames = {'), DROP_REASONS);
    assert.deepEqual(enumerators(file, 'enum class DropReason : uint8_t {').map(kebab), DROP_REASONS);
  });

  it('are the same for what asks for the tunnel', () => {
    assert.equal(Number(between('core/kernel_path/layout.h', 'kKernelProbeMark =', '}')), PROBE_MARK);
  });

  it('are the same for the limits of ICMP errors', () => {
    const limit = (name: string): number => {
      const text = between('core/worker/icmp_sender.h', `static constexpr uint32_t k${name} =`, ';');
      return Number(text.replaceAll("'", ''));
    };
    assert.deepEqual(ICMP_LIMITS, {
      perSecond: limit('PerSecond'),
      burst: limit('Burst'),
      fragmentationNeededPerSecond: limit('FragmentationNeededPerSecond'),
      fragmentationNeededBurst: limit('FragmentationNeededBurst'),
    });
  });

  it('are the same for offloads', () => {
    const file = 'core/base/offload.h';
    assert.deepEqual(texts(file, 'kOffloadNames = {'), OFFLOADS);
    assert.deepEqual(enumerators(file, 'enum class Offload : uint8_t {').map(camel), OFFLOADS);
    assert.equal(constant(file, 'kOffloadCount ='), OFFLOADS.length);
  });

  it('are the same for ICMP errors', () => {
    assert.deepEqual(texts('addon/convert.cc', 'kIcmpNames = {'), ICMP_ERRORS);
    const names: Readonly<Record<string, (typeof ICMP_ERRORS)[number]>> = {
      kNetUnreachable: 'unreachable-net',
      kTimeExceeded: 'time-exceeded',
      kFragmentationNeeded: 'frag-needed',
    };
    const values = enumerators('core/packet/icmp.h', 'enum class IcmpError : uint8_t {');
    assert.deepEqual(
      values.map((value) => names[value]),
      ICMP_ERRORS,
    );
    assert.equal(constant('core/packet/icmp.h', 'kIcmpErrorCount ='), ICMP_ERRORS.length);
  });

  it('are the same for events', () => {
    const events: Readonly<Record<Exclude<TunnelEvent['type'], 'kernel-path'>, number>> = {
      downgrade: 0,
      trial: 1,
      failed: 2,
    };
    assert.deepEqual(texts('addon/event_queue.cc', 'kEventNames = {'), Object.keys(events));
    assert.deepEqual(
      enumerators('core/worker/events.h', 'enum class Type : uint8_t {').map(kebab),
      Object.keys(events),
    );
  });

  it('are the same for what the programs of the kernel path count, and for what receives', () => {
    const counters = enumerators('core/kernel_path/layout.h', 'enum KernelCounter {').map(kebab);
    assert.deepEqual(counters, [...KERNEL_COUNTERS, 'kernel-counter-count']);
    const receivers = enumerators('core/kernel_path/kernel_carrier.h', 'enum class KernelReceiver : uint8_t {');
    assert.deepEqual(receivers.map(kebab), KERNEL_RECEIVERS);
  });

  it('are the same for the steps of the kernel path that mean something of their own', () => {
    for (const step of ['attach XDP program', 'attach tc program'])
      assert.ok(sourceOf('core/kernel_path/attachment.cc').includes(`"${step}"`), step);
  });

  it('are the same for the checks of the source', () => {
    const values = enumerators('core/worker/forwarding_state.h', 'enum class VerifySource : uint8_t {');
    assert.deepEqual(Object.fromEntries(values.map((value, number) => [kebab(value), number])), VERIFY_SOURCE);
  });

  it('are the same for the counters of a tunnel, and in their order for those of a peer', () => {
    const tunnel = between('addon/convert.cc', 'const TunnelCounters& counters) {', '\n}');
    const keys = [...tunnel.matchAll(/\b(?:set|object\.Set)\("(\w+)"/g)].map(([, key]) => key);
    assert.deepEqual(keys.toSorted(), Object.keys(sampleTunnelCounters()).toSorted());
    const row = between('addon/convert.cc', 'const std::vector<OuterCounters>& counters) {', '\n}');
    const values = [...row.matchAll(/each\.(\w+)/g)].map(([, name]) => fromSnake(name ?? ''));
    assert.deepEqual(values, PEER_COUNTERS);
    assert.equal(Number(/kRow = (\d+);/.exec(row)?.[1]), PEER_COUNTERS.length);
  });

  it('are the same for the version and the limits', () => {
    assert.equal(constant('addon/addon.cc', 'kInterfaceVersion ='), INTERFACE_VERSION);
    assert.equal(constant('core/worker/counters.h', 'kBatchBuckets ='), BATCH_BUCKETS);
    assert.equal(constant('core/worker/tunnel.h', 'kMaxTunnelWorkers ='), MAX_UDP_WORKERS);
  });
});
