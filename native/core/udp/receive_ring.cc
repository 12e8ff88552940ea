#include "receive_ring.h"

#include <netinet/udp.h>

#include <algorithm>
#include <cstring>

#include "../base/bytes.h"

#ifndef UDP_GRO
#define UDP_GRO 104
#endif

namespace tsflannel {

ReceiveRing::ReceiveRing()
    : buffers_(new uint8_t[kMessages * kStride]),
      messages_(kMessages),
      parts_(kMessages),
      sources_(kMessages),
      controls_(kMessages) {
  for (size_t i = 0; i < kMessages; i++) {
    parts_[i] = {buffers_.get() + i * kStride, kBufferBytes};
    messages_[i].msg_hdr.msg_name = &sources_[i];
    messages_[i].msg_hdr.msg_iov = &parts_[i];
    messages_[i].msg_hdr.msg_iovlen = 1;
    messages_[i].msg_hdr.msg_control = controls_[i].bytes;
  }
}

int ReceiveRing::receive(Kernel& kernel, int socket, size_t limit) {
  const size_t count = std::min({limit, kMessages, was_bulk_ ? kBulkMessages : kMessages});
  offered_ = count;
  for (size_t i = 0; i < count; i++) {
    messages_[i].msg_hdr.msg_namelen = sizeof sources_[i];
    messages_[i].msg_hdr.msg_controllen = sizeof controls_[i].bytes;
  }
  const int received = kernel.recvmmsg(socket, messages_.data(), static_cast<unsigned>(count));
  if (received > 0) {
    const auto first = messages_.begin();
    was_bulk_ =
        std::any_of(first, first + received, [](const mmsghdr& message) { return message.msg_len > kBulkBytes; });
  }
  return received;
}

ReceivedMessage ReceiveRing::message(size_t index) const {
  const mmsghdr& header = messages_[index];
  ReceivedMessage message;
  message.data = {buffers_.get() + index * kStride, header.msg_len};
  message.segment_length = std::max<size_t>(header.msg_len, 1);
  message.outer_source = swap_be32(sources_[index].sin_addr.s_addr);
  if (header.msg_hdr.msg_controllen >= CMSG_LEN(sizeof(int))) {
    // UDP_GRO is the only control message this socket asks for, so it is the first.
    const auto* control = reinterpret_cast<const cmsghdr*>(controls_[index].bytes);
    if (control->cmsg_level == IPPROTO_UDP && control->cmsg_type == UDP_GRO) {
      int segment_length = 0;
      std::memcpy(&segment_length, CMSG_DATA(control), sizeof segment_length);
      if (segment_length > 0) message.segment_length = static_cast<size_t>(segment_length);
    }
  }
  return message;
}

}  // namespace tsflannel
