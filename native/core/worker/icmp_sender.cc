#include "icmp_sender.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <array>

#include "../udp/udp_socket.h"

namespace tsflannel {

void IcmpSender::answer(IcmpError error, const Ipv4View& offender, uint16_t next_hop_mtu) {
  if (!may_send_icmp_error(error, offender)) return;
  WorkerCounters& counters = context_.counters;
  RateLimit& limit = error == IcmpError::kFragmentationNeeded ? fragmentation_needed_limit_ : limit_;
  if (!limit.take(monotonic_ns())) return counters.icmp_limited.add(1);
  std::array<uint8_t, kIcmpMaxError> packet;
  const size_t length = build_icmp_error(packet, error, context_.state->icmp_source, offender, next_hop_mtu);
  sockaddr_in to = to_sockaddr({offender.source, 0});
  iovec part{packet.data(), length};
  mmsghdr message{};
  message.msg_hdr.msg_name = &to;
  message.msg_hdr.msg_namelen = sizeof to;
  message.msg_hdr.msg_iov = &part;
  message.msg_hdr.msg_iovlen = 1;
  const bool is_sent = context_.kernel.sendmmsg(context_.icmp_socket, &message, 1) == 1;
  (is_sent ? counters.icmp_sent[static_cast<size_t>(error)] : counters.icmp_failed).add(1);
}

}  // namespace tsflannel
