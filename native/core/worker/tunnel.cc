#include "tunnel.h"

#include <sched.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "../packet/ipv4.h"
#include "../udp/send_batch.h"

namespace tsflannel {
namespace {

constexpr unsigned kMaxWorkers = 4;

/// CPUs this process may run on; a container or a unit file can make them fewer than the host has.
unsigned available_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return static_cast<unsigned>(CPU_COUNT(&set));
}

std::vector<UniqueFd> take_over(const std::vector<int>& numbers) {
  std::vector<UniqueFd> fds;
  fds.reserve(numbers.size());
  for (const int number : numbers) fds.emplace_back(number);
  return fds;
}

Result<UdpSockets> obtain_sockets(Kernel& kernel, const UdpOptions& options, std::vector<UniqueFd> inherited) {
  if (!inherited.empty()) {
    Result<UdpSockets> adopted = adopt_udp(kernel, options, std::move(inherited));
    if (adopted) return adopted;
  }
  return open_udp(kernel, options);
}

Result<TunDevice> obtain_tun(Kernel& kernel, const TunOptions& options, std::vector<UniqueFd> inherited) {
  if (!inherited.empty()) {
    Result<TunDevice> adopted = adopt_tun(kernel, options, std::move(inherited));
    if (adopted) return adopted;
  }
  return open_tun(kernel, options);
}

/// Lets programs at the sockets tell where their packets come, if the kernel takes them.
std::optional<PacketCpus> watch_cpus(Kernel& kernel, const UdpSockets& sockets) {
  Result<PacketCpus> cpus = PacketCpus::create(kernel);
  if (!cpus || !record_cpus(kernel, sockets, cpus.value()).ok()) return std::nullopt;
  return std::move(cpus).value();
}

template <size_t N>
void add_all(std::array<uint64_t, N>& totals, const std::array<Counter, N>& counters) {
  for (size_t i = 0; i < N; i++) totals[i] += counters[i].get();
}

}  // namespace

unsigned choose_workers(unsigned cpus) {
  return cpus < 4 ? 1 : std::min(kMaxWorkers, cpus / 2);
}

Tunnel::Tunnel(Kernel& kernel, EventSink& sink, TunDevice device, UdpSockets sockets, UniqueFd icmp_socket,
               std::optional<PacketCpus> cpus, OffloadSet offloads)
    : kernel_(kernel),
      device_(std::move(device)),
      sockets_(std::move(sockets.sockets)),
      icmp_socket_(std::move(icmp_socket)),
      cpus_(std::move(cpus)),
      overflow_before_(sockets_.size()),
      health_(offloads, sink) {
  // Sockets that were taken over have lost datagrams before.
  read_overflow();
  overflow_ = 0;
}

Result<std::unique_ptr<Tunnel>> Tunnel::open(Kernel& kernel, EventSink& sink, const TunnelConfig& config,
                                             const TunnelState& state) {
  const unsigned processors = available_cpus();
  const unsigned count = config.workers > 0 ? config.workers : choose_workers(processors);
  std::vector<UniqueFd> inherited_sockets = take_over(config.inherited_sockets);
  std::vector<UniqueFd> inherited_tun = take_over(config.inherited_tun);
  // The socket comes first: a running flanneld is then found out before anything is created.
  Result<UdpSockets> sockets = obtain_sockets(
      kernel, {.bind = config.bind, .sockets = count, .disabled = config.disabled}, std::move(inherited_sockets));
  if (!sockets) return sockets.error();
  std::optional<PacketCpus> cpus = watch_cpus(kernel, sockets.value());
  Result<TunDevice> device = obtain_tun(kernel, {.name = config.device, .workers = count, .disabled = config.disabled},
                                        std::move(inherited_tun));
  if (!device) return device.error();

  Result<UniqueFd> icmp_socket = open_icmp_socket(kernel);
  if (!icmp_socket) return icmp_socket.error();

  const OffloadSet offloads = OffloadSet::from_bits(sockets.value().offloads.bits() | device.value().offloads.bits());
  const bool has_vnet_header = offloads.has(Offload::kVnetHdr);
  std::unique_ptr<Tunnel> tunnel(new Tunnel(kernel, sink, std::move(device).value(), std::move(sockets).value(),
                                            std::move(icmp_socket).value(), std::move(cpus), offloads));
  const size_t lanes = tunnel->device_.queues.size() / count;
  const std::vector<int> queues = tunnel->tun_descriptors();
  for (unsigned index = 0; index < count; index++) {
    const auto first_lane = queues.begin() + static_cast<std::ptrdiff_t>(index * lanes);
    Result<std::unique_ptr<Worker>> worker =
        Worker::create(kernel, tunnel->health_, tunnel->published_,
                       {.index = index,
                        .lanes = {first_lane, first_lane + static_cast<std::ptrdiff_t>(lanes)},
                        .socket = tunnel->sockets_[index].get(),
                        .icmp_socket = tunnel->icmp_socket_.get(),
                        .has_vnet_header = has_vnet_header,
                        .realtime_share = count < processors ? config.realtime_share : 0,
                        .bind = config.bind,
                        .cpus = tunnel->cpus_ ? &*tunnel->cpus_ : nullptr});
    if (!worker) return worker.error();
    tunnel->workers_.push_back(std::move(worker).value());
  }
  const Result<uint64_t> updated = tunnel->update(state);
  if (!updated) return updated.error();
  for (const std::unique_ptr<Worker>& worker : tunnel->workers_) {
    const Result<void> started = worker->start();
    if (!started) return started.error();
  }
  return tunnel;
}

Result<uint64_t> Tunnel::update(const TunnelState& state) {
  Result<std::unique_ptr<const ForwardingState>> built = build(state);
  if (!built) return built.error();
  release_unused_slots(*built.value()->table);
  std::unique_ptr<const ForwardingState> previous = std::exchange(current_, std::move(built).value());
  published_.store(current_.get(), std::memory_order_release);
  next_generation_ = current_->generation + 1;
  if (previous != nullptr) retired_.push_back(std::move(previous));
  for (const std::unique_ptr<Worker>& worker : workers_) worker->wake();
  reclaim();
  return current_->generation;
}

Result<std::unique_ptr<const ForwardingState>> Tunnel::build(const TunnelState& state) {
  if (state.mtu < kIpv4MinHeader || state.mtu > kMaxUdpPayload) {
    return Error{"set MTU", EINVAL, std::to_string(state.mtu)};
  }
  std::vector<Peer> peers;
  std::vector<PeerEntry> entries;
  std::unordered_map<uint32_t, uint32_t> peer_of;  // by outer address
  auto result = std::make_unique<ForwardingState>();
  for (const Route& route : state.routes) {
    const auto [found, is_new] = peer_of.try_emplace(route.outer, static_cast<uint32_t>(peers.size()));
    if (is_new) {
      const Result<uint32_t> slot = slot_for(route.outer);
      if (!slot) return slot.error();
      peers.push_back({route.outer});
      result->counter_slots.push_back(slot.value());
    }
    entries.push_back({route.prefix, route.length, found->second});
  }
  result->generation = next_generation_;
  result->icmp_source = state.icmp_source;
  result->mtu = static_cast<uint16_t>(state.mtu);
  result->verify_source = state.verify_source;
  for (const Subnet& subnet : state.own) {
    result->own.push_back({subnet.prefix, subnet.length == 0 ? 0 : UINT32_MAX << (32 - subnet.length)});
  }
  Result<std::unique_ptr<const PeerTable>> table = PeerTable::build(entries, peers, next_generation_);
  if (!table) return table.error();
  result->table = std::move(table).value();
  return std::unique_ptr<const ForwardingState>(std::move(result));
}

/// The slot of an address: the one it has, else one that no worker can still be counting in, else a new one.
Result<uint32_t> Tunnel::slot_for(uint32_t outer) {
  if (const auto found = slots_.find(outer); found != slots_.end()) return found->second;
  const uint64_t adopted = generation();
  const auto free = std::find_if(free_slots_.begin(), free_slots_.end(),
                                 [adopted](const FreeSlot& each) { return each.generation <= adopted; });
  uint32_t slot = slot_count_;
  if (free != free_slots_.end()) {
    slot = free->slot;
    free_slots_.erase(free);
  } else if (slot_count_ == PeerCounterTable::kMaxSlots) {
    return Error{"add a peer", E2BIG, ""};
  } else {
    slot_count_++;
  }
  for (const std::unique_ptr<Worker>& worker : workers_) {
    worker->peer_counters().ensure(slot);
    PeerCounters& counters = worker->peer_counters().at(slot);
    counters.tx_packets.reset();
    counters.tx_bytes.reset();
    counters.rx_packets.reset();
    counters.rx_bytes.reset();
  }
  slots_.emplace(outer, slot);
  return slot;
}

void Tunnel::release_unused_slots(const PeerTable& table) {
  std::erase_if(slots_, [&](const auto& slot) {
    const bool is_unused = table.find_outer(slot.first) == kNoPeer;
    if (is_unused) free_slots_.push_back({slot.second, table.generation()});
    return is_unused;
  });
}

/// Frees the states that no worker uses any more.
void Tunnel::reclaim() {
  const uint64_t adopted = generation();
  std::erase_if(retired_, [adopted](const auto& state) { return state->generation < adopted; });
}

uint64_t Tunnel::generation() const {
  uint64_t lowest = UINT64_MAX;
  for (const std::unique_ptr<Worker>& worker : workers_) lowest = std::min(lowest, worker->adopted_generation());
  return workers_.empty() ? 0 : lowest;
}

/// Adds what the sockets have lost since the last call; the kernel's own numbers wrap.
void Tunnel::read_overflow() {
  for (size_t i = 0; i < sockets_.size(); i++) {
    const int64_t drops = kernel_.socket_drops(sockets_[i].get());
    if (drops < 0) continue;
    const auto now = static_cast<uint32_t>(drops);
    overflow_ += now - std::exchange(overflow_before_[i], now);
  }
}

TunnelCounters Tunnel::counters() {
  TunnelCounters totals;
  for (const std::unique_ptr<Worker>& worker : workers_) {
    const WorkerCounters& counters = worker->counters();
    totals.tx_packets += counters.tx_packets.get();
    totals.tx_bytes += counters.tx_bytes.get();
    totals.rx_packets += counters.rx_packets.get();
    totals.rx_bytes += counters.rx_bytes.get();
    totals.tun_reads += counters.tun_reads.get();
    totals.tun_writes += counters.tun_writes.get();
    totals.socket_sends += counters.socket_sends.get();
    totals.socket_receives += counters.socket_receives.get();
    totals.icmp_limited += counters.icmp_limited.get();
    totals.icmp_failed += counters.icmp_failed.get();
    add_all(totals.icmp_sent, counters.icmp_sent);
    add_all(totals.drops, counters.drops);
    add_all(totals.packets_per_read, counters.packets_per_read.buckets);
    add_all(totals.packets_per_send, counters.packets_per_send.buckets);
    add_all(totals.packets_per_write, counters.packets_per_write.buckets);
    totals.worker_cpu_seconds.push_back(worker->cpu_seconds());
  }
  for (size_t i = 0; i < kOffloadCount; i++) {
    totals.downgrades[i] = health_.downgrades(static_cast<Offload>(i));
    totals.trials[i] = health_.trials(static_cast<Offload>(i));
  }
  read_overflow();
  totals.drops[static_cast<size_t>(DropReason::kReceiveOverflow)] += overflow_;
  return totals;
}

std::vector<OuterCounters> Tunnel::peer_counters() {
  std::vector<OuterCounters> all;
  all.reserve(slots_.size());
  for (const auto& [outer, slot] : slots_) {
    OuterCounters totals{.outer = outer};
    for (const std::unique_ptr<Worker>& worker : workers_) {
      const PeerCounters& counters = worker->peer_counters().at(slot);
      totals.tx_packets += counters.tx_packets.get();
      totals.tx_bytes += counters.tx_bytes.get();
      totals.rx_packets += counters.rx_packets.get();
      totals.rx_bytes += counters.rx_bytes.get();
    }
    all.push_back(totals);
  }
  return all;
}

std::vector<int> Tunnel::numbers_of(const std::vector<UniqueFd>& fds) {
  std::vector<int> numbers;
  numbers.reserve(fds.size());
  for (const UniqueFd& fd : fds) numbers.push_back(fd.get());
  return numbers;
}

void Tunnel::close() {
  for (const std::unique_ptr<Worker>& worker : workers_) worker->stop();
  device_.queues.clear();
  read_overflow();
  sockets_.clear();
  icmp_socket_.reset();
  cpus_.reset();
}

}  // namespace tsflannel
