#include "kernel_carrier.h"

#include <algorithm>
#include <cerrno>
#include <set>
#include <utility>

namespace tsflannel {
namespace {

struct Part {
  KernelProgram program;
  Attachment::Place place;
};

/// What receives comes first, and behind XDP what its marks are for.
std::vector<Part> parts_of(const KernelPathConfig& config, KernelReceiver receiver) {
  std::vector<Part> parts;
  if (receiver == KernelReceiver::kXdp) {
    parts.push_back({KernelProgram::kDeliver, {config.uplink, AttachPoint::kIngress}});
    parts.push_back({KernelProgram::kReceiveXdp, {config.uplink, AttachPoint::kXdp}});
  } else {
    parts.push_back({KernelProgram::kReceiveTc, {config.uplink, AttachPoint::kIngress}});
  }
  parts.push_back({KernelProgram::kSend, {config.tun, AttachPoint::kEgress}});
  return parts;
}

std::vector<Attachment> adopt_links(Kernel& kernel, std::vector<UniqueFd> links) {
  std::vector<Attachment> adopted;
  for (UniqueFd& link : links) {
    std::optional<Attachment> attachment = Attachment::adopt(kernel, std::move(link));
    if (attachment) adopted.push_back(std::move(*attachment));
  }
  return adopted;
}

/// The descriptors of the maps are gone if they do not fit.
Result<KernelPathMaps> open_maps(Kernel& kernel, std::vector<UniqueFd> former) {
  if (!former.empty()) {
    Result<KernelPathMaps> adopted = KernelPathMaps::adopt(kernel, std::move(former));
    if (adopted) return adopted;
  }
  return KernelPathMaps::create(kernel, kKernelRoutes);
}

}  // namespace

Result<KernelCarrier> KernelCarrier::open(Kernel& kernel, const ProgramObject& object, const KernelPathConfig& config,
                                          KernelReceiver receiver, std::span<const KernelCarrierRoute> routes,
                                          KernelCarrierRemains remains) {
  Result<KernelPathMaps> maps = open_maps(kernel, std::move(remains.maps));
  if (!maps) return maps.error();
  KernelCarrier carrier(kernel, config, receiver, std::move(maps).value());
  const Result<void> filled = carrier.set_routes(routes);
  if (!filled) return filled.error();
  const Result<void> attached = carrier.attach(object, adopt_links(kernel, std::move(remains.links)));
  if (!attached) {
    (void)carrier.detach();  // what it was that failed says more
    return attached.error();
  }
  return carrier;
}

Result<void> KernelCarrier::attach(const ProgramObject& object, std::vector<Attachment> former) {
  for (const Part& part : parts_of(config_, receiver_)) {
    const Result<UniqueFd> program = load_kernel_program(*kernel_, object, part.program, maps_, config_);
    if (!program) return program.error();
    const auto known = std::find_if(former.begin(), former.end(),
                                    [&part](const Attachment& each) { return each.place() == part.place; });
    if (known != former.end()) {
      attachments_.push_back(std::move(*known));
      former.erase(known);
      Result<void> exchanged = attachments_.back().exchange(program.value());
      if (!exchanged) return exchanged;
      continue;
    }
    Result<Attachment> fresh = Attachment::attach(*kernel_, program.value(), part.place, config_.local);
    if (!fresh) return fresh.error();
    attachments_.push_back(std::move(fresh).value());
  }
  for (Attachment& each : former) (void)each.detach();  // of a device that is not used any more
  return {};
}

void KernelCarrier::assign_slots(std::span<const KernelCarrierRoute> routes) {
  std::set<uint32_t> present;
  for (const KernelCarrierRoute& each : routes) {
    if (each.outer != 0) present.insert(each.outer);
  }
  std::erase_if(slots_, [&present](const auto& entry) { return !present.contains(entry.first); });
  std::vector<bool> is_used(kKernelPeers);
  for (const auto& [_, slot] : slots_) is_used.at(slot) = true;
  uint32_t next = 0;
  for (const uint32_t outer : present) {
    if (slots_.contains(outer)) continue;
    while (next + 1 < kKernelPeers && is_used[next]) next++;
    is_used[next] = true;
    maps_.reset_peer_counters(next);
    slots_[outer] = next;
  }
}

Result<void> KernelCarrier::set_routes(std::span<const KernelCarrierRoute> routes) {
  assign_slots(routes);
  std::vector<KernelPathRoute> wanted;
  wanted.reserve(routes.size());
  for (const auto& [prefix, length, outer, mtu] : routes) {
    const uint32_t slot = outer == 0 ? 0 : slots_.at(outer);
    wanted.push_back({.prefix = prefix, .length = length, .outer = outer, .slot = slot, .mtu = mtu});
  }
  return maps_.set_routes(wanted);
}

Result<void> KernelCarrier::leave_bulk(std::chrono::milliseconds duration) const {
  // The steady clock is CLOCK_MONOTONIC, as that of the programs is.
  const auto until = std::chrono::steady_clock::now().time_since_epoch() + duration;
  return maps_.leave_bulk_until(static_cast<uint64_t>(std::chrono::nanoseconds(until).count()));
}

std::vector<KernelCarrierPeer> KernelCarrier::peer_counters() const {
  std::vector<KernelCarrierPeer> peers;
  peers.reserve(slots_.size());
  for (const auto& [outer, slot] : slots_) peers.push_back({outer, maps_.peer_counters(slot)});
  return peers;
}

std::vector<int> KernelCarrier::map_descriptors() const {
  const std::array<int, kKernelMapCount> numbers = maps_.descriptors();
  return {numbers.begin(), numbers.end()};
}

std::vector<int> KernelCarrier::link_descriptors() const {
  std::vector<int> numbers;
  for (const Attachment& each : attachments_) {
    if (each.is_link()) numbers.push_back(each.descriptor());
  }
  return numbers;
}

bool KernelCarrier::is_in_place() const {
  return std::all_of(attachments_.begin(), attachments_.end(),
                     [](const Attachment& each) { return each.is_in_place(); });
}

Result<void> KernelCarrier::detach() {
  Result<void> result;
  // What receives goes last: what is under way still arrives.
  for (auto each = attachments_.rbegin(); each != attachments_.rend(); ++each) {
    const Result<void> detached = each->detach();
    if (!detached) result = detached;
  }
  attachments_.clear();
  return result;
}

}  // namespace tsflannel
