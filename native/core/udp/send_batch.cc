#include "send_batch.h"

#include <netinet/udp.h>

#include <algorithm>
#include <cstring>

#include "../base/bytes.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

namespace tsflannel {

SendBatch::SendBatch(uint16_t port)
    : entries_(kMaxEntries),
      parts_(new iovec[kMaxEntries * kPartsPerEntry]),
      messages_(kMaxEntries),
      addresses_(kMaxEntries, to_sockaddr({0, port})),
      controls_(kMaxEntries) {
  for (Control& control : controls_) {
    auto* header = reinterpret_cast<cmsghdr*>(control.bytes);
    header->cmsg_level = IPPROTO_UDP;
    header->cmsg_type = UDP_SEGMENT;
    header->cmsg_len = CMSG_LEN(sizeof(uint16_t));
  }
}

SendBatch::Room SendBatch::reserve(const Destination& to, size_t length, size_t wanted, bool may_segment) {
  // Only the peer's latest entry may grow, or its packets would change places.
  for (size_t index = entry_count_; may_segment && index-- > 0;) {
    const SendEntry& entry = entries_[index];
    if (entry.to.outer != to.outer) continue;
    if (entry.is_closed || length > entry.segment_length) break;
    const size_t by_bytes = (kMaxUdpPayload - entry.bytes) / length;
    const size_t by_count = kMaxSegments - entry.packets;
    const size_t by_shape = length == entry.segment_length ? wanted : 1;
    const size_t room = std::min({by_bytes, by_count, by_shape});
    if (room == 0) break;
    return {static_cast<uint32_t>(index), static_cast<uint16_t>(room), &parts_[index * kPartsPerEntry + entry.parts]};
  }
  if (entry_count_ == kMaxEntries) return {};
  const size_t index = entry_count_++;
  SendEntry& entry = entries_[index];
  entry = SendEntry{};
  entry.to = to;
  entry.segment_length = static_cast<uint16_t>(length);
  const size_t room = may_segment ? std::min({wanted, kMaxSegments, kMaxUdpPayload / length}) : 1;
  return {static_cast<uint32_t>(index), static_cast<uint16_t>(room), &parts_[index * kPartsPerEntry]};
}

void SendBatch::commit(const Room& room, size_t packets, size_t length, size_t parts) {
  SendEntry& entry = entries_[room.entry];
  entry.packets = static_cast<uint16_t>(entry.packets + packets);
  entry.parts = static_cast<uint16_t>(entry.parts + parts);
  entry.bytes += static_cast<uint32_t>(packets * length);
  entry.is_closed = length < entry.segment_length;
}

void SendBatch::address_message(mmsghdr& message, size_t index) {
  addresses_[index].sin_addr.s_addr = swap_be32(entries_[index].to.outer);
  message = mmsghdr{};
  message.msg_hdr.msg_name = &addresses_[index];
  message.msg_hdr.msg_namelen = sizeof addresses_[index];
}

mmsghdr* SendBatch::messages(size_t first) {
  for (size_t index = first; index < entry_count_; index++) {
    const SendEntry& entry = entries_[index];
    mmsghdr& message = messages_[index];
    address_message(message, index);
    message.msg_hdr.msg_iov = &parts_[index * kPartsPerEntry];
    message.msg_hdr.msg_iovlen = entry.parts;
    if (entry.packets > 1) {
      auto* control = reinterpret_cast<cmsghdr*>(controls_[index].bytes);
      std::memcpy(CMSG_DATA(control), &entry.segment_length, sizeof entry.segment_length);
      message.msg_hdr.msg_control = control;
      message.msg_hdr.msg_controllen = CMSG_LEN(sizeof(uint16_t));
    }
  }
  return &messages_[first];
}

mmsghdr* SendBatch::single(size_t index, size_t& parts, size_t& length) {
  const SendEntry& entry = entries_[index];
  const size_t sent = size_t{entry.next_packet} * entry.segment_length;
  length = std::min<size_t>(entry.segment_length, entry.bytes - sent);
  iovec* first = &parts_[index * kPartsPerEntry + entry.next_part];
  parts = 0;
  for (size_t rest = length; rest > 0; parts++) rest -= first[parts].iov_len;
  mmsghdr& message = messages_[index];
  address_message(message, index);
  message.msg_hdr.msg_iov = first;
  message.msg_hdr.msg_iovlen = parts;
  return &message;
}

}  // namespace tsflannel
