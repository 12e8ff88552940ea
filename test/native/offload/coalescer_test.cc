#include "../../../native/core/offload/coalescer.h"

#include <algorithm>
#include <deque>

#include "../support/coalescer_model.h"

namespace tsflannel::testing {
namespace {

constexpr uint8_t kAck = 0x10;
constexpr uint8_t kPsh = 0x08;

// Packets per item of a batch, after all invariants of the model were checked.
std::vector<Written> run(const std::vector<Bytes>& batch, const CoalescerOptions& options = {}) {
  Coalescer coalescer(std::max<size_t>(batch.size(), 1), options);
  std::string error;
  std::vector<Written> written = coalesce(coalescer, batch, error);
  CHECK_EQ(error, "");
  return written;
}

std::string shape(const std::vector<Written>& written) {
  std::string text;
  for (const Written& item : written) text += (text.empty() ? "" : " ") + std::to_string(item.packets);
  return text;
}

std::string shape_of(const std::vector<Bytes>& batch, const CoalescerOptions& options = {}) {
  return shape(run(batch, options));
}

// A TCP or UDP flow that hands out its next packet.
struct Stream {
  Ip ip = {};
  Tcp tcp = {};
  Udp udp = {};
  uint32_t position = 0;

  Bytes tcp_next(size_t length) {
    const Bytes packet = make_tcp(ip, tcp, pattern(length, position));
    tcp.sequence += static_cast<uint32_t>(length);
    ip.id++;
    position += static_cast<uint32_t>(length);
    return packet;
  }
  Bytes udp_next(size_t length) {
    const Bytes packet = make_udp(ip, udp, pattern(length, position));
    ip.id++;
    position += static_cast<uint32_t>(length);
    return packet;
  }
};

TEST("consecutive segments of a flow become one packet with the headers the TUN expects") {
  Stream s;
  const std::vector<Bytes> batch = {s.tcp_next(1000), s.tcp_next(1000), s.tcp_next(1000), s.tcp_next(400)};
  const std::vector<Written> written = run(batch);
  CHECK_EQ(shape(written), "4");
  const Written& item = written[0];
  CHECK_EQ(item.packet.size(), 40 + 3400U);
  CHECK_EQ(get16(item.packet, 2), 3440);
  CHECK_EQ(get16(item.packet, 4), 0x1234);
  CHECK_EQ(item.vnet.flags, kVnetNeedsChecksum);
  CHECK_EQ(item.vnet.gso_type, kGsoTcpV4);
  CHECK_EQ(item.vnet.header_length, 40);
  CHECK_EQ(item.vnet.gso_size, 1000);
  CHECK_EQ(item.vnet.csum_start, 20);
  CHECK_EQ(item.vnet.csum_offset, 16);
  CHECK(ip_checksum_right(item.packet));
  const Bytes payload(item.packet.begin() + 40, item.packet.end());
  CHECK(payload == pattern(3400));
}

TEST("UDP datagrams of one size become one packet, the last may be shorter") {
  Stream s;
  const std::vector<Bytes> batch = {s.udp_next(500), s.udp_next(500), s.udp_next(499), s.udp_next(499)};
  const std::vector<Written> written = run(batch);
  CHECK_EQ(shape(written), "3 1");
  CHECK_EQ(written[0].vnet.gso_type, kGsoUdpL4);
  CHECK_EQ(written[0].vnet.header_length, 28);
  CHECK_EQ(written[0].vnet.gso_size, 500);
  CHECK_EQ(written[0].vnet.csum_offset, 6);
  CHECK_EQ(get16(written[0].packet, 24), 8 + 1499);
}

TEST("a single packet is written unchanged, without vnet flags") {
  Stream s;
  const std::vector<Bytes> batch = {s.tcp_next(1000)};
  const std::vector<Written> written = run(batch);
  CHECK_EQ(shape(written), "1");
  CHECK(written[0].packet == batch[0]);
  CHECK_EQ(written[0].vnet.flags, 0);
  CHECK_EQ(written[0].vnet.gso_type, kGsoNone);
  CHECK_EQ(written[0].vnet.gso_size, 0);
}

TEST("a shorter segment is the last of its item") {
  Stream s;
  CHECK_EQ(shape_of({s.tcp_next(100), s.tcp_next(100), s.tcp_next(99), s.tcp_next(99), s.tcp_next(100)}), "3 1 1");
}

TEST("a longer segment starts an item of its own") {
  Stream s;
  CHECK_EQ(shape_of({s.tcp_next(100), s.tcp_next(101), s.tcp_next(101)}), "1 2");
}

TEST("PSH ends an item and is carried into its header") {
  Stream s;
  std::vector<Bytes> batch = {s.tcp_next(100), s.tcp_next(100)};
  s.tcp.flags = kAck | kPsh;
  batch.push_back(s.tcp_next(100));
  s.tcp.flags = kAck;
  batch.push_back(s.tcp_next(100));
  batch.push_back(s.tcp_next(100));
  const std::vector<Written> written = run(batch);
  CHECK_EQ(shape(written), "3 2");
  CHECK_EQ(written[0].packet[33], kAck | kPsh);
  CHECK_EQ(written[1].packet[33], kAck);
}

TEST("a first packet with PSH takes no more") {
  Stream s;
  s.tcp.flags = kAck | kPsh;
  CHECK_EQ(shape_of({s.tcp_next(100), s.tcp_next(100), s.tcp_next(100)}), "1 1 1");
}

TEST("ECE merges with ECE only") {
  Stream s;
  s.tcp.flags = kAck | 0x40;
  std::vector<Bytes> batch = {s.tcp_next(100), s.tcp_next(100)};
  s.tcp.flags = kAck;
  batch.push_back(s.tcp_next(100));
  batch.push_back(s.tcp_next(100));
  const std::vector<Written> written = run(batch);
  CHECK_EQ(shape(written), "2 2");
  CHECK_EQ(written[0].packet[33], kAck | 0x40);
}

TEST("CWR, SYN, FIN, RST, URG, a missing ACK and reserved bits go alone and in place") {
  const auto with = [](uint8_t flags, uint8_t reserved) {
    Stream s;
    std::vector<Bytes> batch = {s.tcp_next(100), s.tcp_next(100)};
    s.tcp.flags = flags;
    s.tcp.reserved = reserved;
    batch.push_back(s.tcp_next(100));
    s.tcp.flags = kAck;
    s.tcp.reserved = 0;
    batch.push_back(s.tcp_next(100));
    batch.push_back(s.tcp_next(100));
    return shape_of(batch);
  };
  for (const uint8_t bit : {uint8_t{0x01}, uint8_t{0x02}, uint8_t{0x04}, uint8_t{0x20}, uint8_t{0x80}}) {
    CHECK_EQ_NOTE(with(kAck | bit, 0), "2 1 2", show(bit));
  }
  CHECK_EQ(with(0, 0), "2 1 2");
  CHECK_EQ(with(kAck, 1), "2 1 2");
  CHECK_EQ(with(kAck, 8), "2 1 2");
}

TEST("a pure ACK goes alone, and the flow goes on behind it") {
  Stream s;
  CHECK_EQ(shape_of({s.tcp_next(100), s.tcp_next(100), s.tcp_next(0), s.tcp_next(100), s.tcp_next(100)}), "2 1 2");
  Stream acks;
  CHECK_EQ(shape_of({acks.tcp_next(0), acks.tcp_next(0)}), "1 1");
}

TEST("timestamps must be the same in every packet") {
  Stream s;
  s.tcp.options = timestamps(10, 20);
  std::vector<Bytes> batch = {s.tcp_next(100), s.tcp_next(100)};
  s.tcp.options = timestamps(11, 20);
  batch.push_back(s.tcp_next(100));
  batch.push_back(s.tcp_next(100));
  s.tcp.options = timestamps(11, 21);
  batch.push_back(s.tcp_next(100));
  s.tcp.options = {};
  batch.push_back(s.tcp_next(100));
  const std::vector<Written> written = run(batch);
  CHECK_EQ(shape(written), "2 2 1 1");
  CHECK_EQ(written[0].vnet.header_length, 52);
}

TEST("every byte of the longest TCP options counts") {
  for (size_t i = 0; i < 40; i++) {
    Stream s;
    s.tcp.options = Bytes(40, 1);
    std::vector<Bytes> batch = {s.tcp_next(100), s.tcp_next(100)};
    s.tcp.options[i] = 0;
    batch.push_back(s.tcp_next(100));
    CHECK_EQ(shape_of(batch), "2 1");
  }
}

TEST("the IP ID must count up without DF, and means nothing with DF") {
  const auto with = [](uint16_t fragment, int step, uint16_t start) {
    Stream s;
    s.ip.fragment = fragment;
    s.ip.id = start;
    std::vector<Bytes> batch;
    for (int i = 0; i < 3; i++) {
      s.ip.id = static_cast<uint16_t>(start + i * step);
      batch.push_back(s.tcp_next(100));
    }
    return shape_of(batch);
  };
  CHECK_EQ(with(0, 1, 7), "3");
  CHECK_EQ(with(0, 1, 0xffff), "3");
  CHECK_EQ(with(0, 0, 7), "1 1 1");
  CHECK_EQ(with(0, 2, 7), "1 1 1");
  CHECK_EQ(with(0, -1, 7), "1 1 1");
  CHECK_EQ(with(0x4000, 0, 0), "3");
  CHECK_EQ(with(0x4000, 1, 7), "3");
  CHECK_EQ(with(0x4000, 99, 7), "3");
}

TEST("a difference in TTL, TOS, ECN, DF, window, ack or urgent pointer ends an item") {
  const auto changed = [](auto change) {
    Stream s;
    std::vector<Bytes> batch = {s.tcp_next(100), s.tcp_next(100)};
    change(s);
    batch.push_back(s.tcp_next(100));
    batch.push_back(s.tcp_next(100));
    return shape_of(batch);
  };
  CHECK_EQ(changed([](Stream&) {}), "4");
  CHECK_EQ(changed([](Stream& s) { s.ip.ttl = 63; }), "2 2");
  CHECK_EQ(changed([](Stream& s) { s.ip.tos = 0x10; }), "2 2");
  CHECK_EQ(changed([](Stream& s) { s.ip.tos = 0x03; }), "2 2");
  CHECK_EQ(changed([](Stream& s) { s.ip.fragment = 0; }), "2 2");
  CHECK_EQ(changed([](Stream& s) { s.tcp.window++; }), "2 2");
  CHECK_EQ(changed([](Stream& s) { s.tcp.ack++; }), "2 2");
  CHECK_EQ(changed([](Stream& s) { s.tcp.urgent++; }), "2 2");
  CHECK_EQ(changed([](Stream& s) { s.tcp.sequence++; }), "2 2");
  CHECK_EQ(changed([](Stream& s) { s.tcp.sequence--; }), "2 2");
}

TEST("addresses, ports and protocol tell flows apart, and flows merge side by side") {
  Stream a;
  Stream b;
  b.tcp.source_port++;
  Stream c;
  c.ip.destination++;
  Stream d;
  d.ip.source++;
  Stream e;
  e.tcp.destination_port++;
  Stream u;
  u.udp = {40000, 443};
  std::vector<Bytes> batch;
  for (int i = 0; i < 3; i++) {
    for (Stream* s : {&a, &b, &c, &d, &e}) batch.push_back(s->tcp_next(200));
    batch.push_back(u.udp_next(200));
  }
  CHECK_EQ(shape_of(batch), "3 3 3 3 3 3");
}

TEST("both directions of a connection are different flows") {
  Stream there;
  Stream back;
  back.ip.source = there.ip.destination;
  back.ip.destination = there.ip.source;
  back.tcp.source_port = there.tcp.destination_port;
  back.tcp.destination_port = there.tcp.source_port;
  CHECK_EQ(shape_of({there.tcp_next(100), back.tcp_next(100), there.tcp_next(100), back.tcp_next(100)}), "2 2");
}

TEST("16 flows merge side by side; with more of them nothing is lost or reordered") {
  for (const size_t flows : {size_t{16}, size_t{17}, size_t{40}}) {
    std::vector<Stream> streams(flows);
    for (size_t i = 0; i < flows; i++) streams[i].tcp.source_port = static_cast<uint16_t>(i + 1);
    std::vector<Bytes> batch;
    for (int round = 0; round < 4; round++) {
      for (Stream& s : streams) batch.push_back(s.tcp_next(100));
    }
    const std::vector<Written> written = run(batch);
    if (flows == 16) CHECK_EQ(written.size(), 16U);
  }
}

TEST("of more than 16 flows, those that came last merge on") {
  std::vector<Stream> streams(18);
  std::vector<Bytes> batch;
  for (size_t i = 0; i < streams.size(); i++) {
    streams[i].tcp.source_port = static_cast<uint16_t>(i + 1);
    batch.push_back(streams[i].tcp_next(100));
  }
  for (const size_t i : {size_t{16}, size_t{17}, size_t{2}, size_t{15}}) batch.push_back(streams[i].tcp_next(100));
  CHECK_EQ(shape_of(batch), "1 1 2 1 1 1 1 1 1 1 1 1 1 1 1 2 2 2");
}

TEST("a packet that goes alone ends the items of its flow only, with 16 of them, too") {
  for (const bool has_ports : {false, true}) {
    std::vector<Stream> streams(16);
    std::vector<Bytes> batch;
    for (size_t i = 0; i < streams.size(); i++) {
      streams[i].tcp.source_port = static_cast<uint16_t>(i + 1);
      streams[i].ip.source += static_cast<uint32_t>(i);
      batch.push_back(streams[i].tcp_next(100));
    }
    Ip ip = streams[0].ip;
    ip.source += 100;
    batch.push_back(has_ports ? make_tcp(ip, {.flags = 0x02}, {}) : make_ip(ip, 6, {}));
    for (Stream& s : streams) batch.push_back(s.tcp_next(100));
    CHECK_EQ(shape_of(batch), "2 2 2 2 2 2 2 2 2 2 2 2 2 2 2 2 1");
  }
}

TEST("a TCP packet cut short in its header, or before, ends the items between its hosts") {
  for (const size_t length : {size_t{20}, size_t{23}, size_t{30}, size_t{39}}) {
    Stream s;
    std::vector<Bytes> batch = {s.tcp_next(100)};
    Bytes cut = Stream(s).tcp_next(100);
    cut.resize(length);
    put16(cut, 2, static_cast<uint16_t>(length));
    fill_ip_checksum(cut);
    batch.push_back(cut);
    batch.push_back(s.tcp_next(100));
    CHECK_EQ(shape_of(batch), "1 1 1");
  }
}

TEST("a TCP packet cut short behind its ports ends the item of its flow only") {
  Stream s;
  Stream other;
  other.tcp.source_port++;
  Bytes cut = Stream(other).tcp_next(100);
  cut.resize(24);
  put16(cut, 2, 24);
  fill_ip_checksum(cut);
  CHECK_EQ(shape_of({s.tcp_next(100), other.tcp_next(100), cut, s.tcp_next(100), other.tcp_next(100)}), "2 1 1 1");
}

TEST("a TCP header shorter than it can be goes alone and in place") {
  Stream s;
  std::vector<Bytes> batch;
  for (int i = 0; i < 5; i++) batch.push_back(s.tcp_next(100));
  batch[2][32] = 0x40;  // four words
  fill_l4_checksum(batch[2]);
  CHECK_EQ(shape_of(batch), "2 1 2");
}

TEST("datagrams of a single byte become one packet") {
  Stream s;
  CHECK_EQ(shape_of({s.udp_next(1), s.udp_next(1), s.udp_next(1)}), "3");
}

TEST("what looks like UDP behind another protocol goes alone") {
  Stream s;
  std::vector<Bytes> batch = {s.udp_next(100), s.udp_next(100), s.udp_next(100), s.udp_next(100)};
  for (const size_t i : {2U, 3U}) {
    batch[i][9] = 99;
    fill_ip_checksum(batch[i]);
  }
  CHECK_EQ(shape_of(batch), "2 1 1");
}

TEST("IP options go alone and in place") {
  Stream s;
  std::vector<Bytes> batch = {s.tcp_next(100), s.tcp_next(100)};
  s.ip.options = {1, 1, 1, 0};
  batch.push_back(s.tcp_next(100));
  batch.push_back(s.tcp_next(100));
  s.ip.options = {};
  batch.push_back(s.tcp_next(100));
  batch.push_back(s.tcp_next(100));
  CHECK_EQ(shape_of(batch), "2 1 1 2");
}

TEST("fragments go alone and in place, the later ones without ports too") {
  for (const uint16_t word : {uint16_t{0x2000}, uint16_t{0x2010}, uint16_t{0x0010}, uint16_t{0x8000}}) {
    Stream s;
    s.ip.fragment = 0;
    std::vector<Bytes> batch = {s.udp_next(104), s.udp_next(104)};
    s.ip.fragment = word;
    batch.push_back(s.udp_next(104));
    s.ip.fragment = 0;
    batch.push_back(s.udp_next(104));
    batch.push_back(s.udp_next(104));
    CHECK_EQ(shape_of(batch), "2 1 2");
  }
}

TEST("a UDP datagram without checksum goes alone and in place") {
  Stream s;
  std::vector<Bytes> batch = {s.udp_next(100), s.udp_next(100)};
  s.udp.checksum = false;
  batch.push_back(s.udp_next(100));
  batch.push_back(s.udp_next(100));
  s.udp.checksum = true;
  batch.push_back(s.udp_next(100));
  CHECK_EQ(shape_of(batch), "2 1 1 1");
}

TEST("an empty UDP datagram, and one whose length is not the packet's, go alone") {
  Stream s;
  std::vector<Bytes> batch = {s.udp_next(100), s.udp_next(0), s.udp_next(100), s.udp_next(100)};
  CHECK_EQ(shape_of(batch), "1 1 2");
  put16(batch[3], 24, 107);
  fill_l4_checksum(batch[3]);
  CHECK_EQ(shape_of(batch), "1 1 1 1");
}

// One packet of a stream is damaged so that a checksum is wrong: merging it would give it a right one.
std::string shape_with_damage(size_t damaged, size_t at, bool udp) {
  Stream s;
  std::vector<Bytes> batch;
  for (int i = 0; i < 5; i++) batch.push_back(udp ? s.udp_next(100) : s.tcp_next(100));
  batch[damaged].at(at) ^= 0x10;
  return shape_of(batch);
}

TEST("a packet with a bad inner checksum is written alone, as it came, wherever it stands") {
  for (const bool udp : {false, true}) {
    const size_t payload = udp ? 60 : 70;
    const size_t field = udp ? 26 : 36;
    for (const size_t at : {payload, field, size_t{10}}) {
      CHECK_EQ(shape_with_damage(0, at, udp), "1 4");
      CHECK_EQ(shape_with_damage(1, at, udp), "1 1 3");
      CHECK_EQ(shape_with_damage(2, at, udp), "2 1 2");
      CHECK_EQ(shape_with_damage(4, at, udp), "4 1");
    }
  }
}

TEST("what is not IPv4, cut short, or of another protocol goes alone and does not disturb other flows") {
  Stream s;
  const Bytes icmp = make_ip({}, 1, pattern(64));
  Bytes six = make_tcp({}, {}, pattern(100));
  six[0] = 0x65;
  Bytes trailing = make_udp({.source = 1}, {}, pattern(20));
  trailing.push_back(0);
  CHECK_EQ(shape_of({s.tcp_next(100),
                     icmp,
                     s.tcp_next(100),
                     {0x45},
                     s.tcp_next(100),
                     trailing,
                     s.tcp_next(100),
                     Bytes(19, 0),
                     s.tcp_next(100)}),
           "5 1 1 1 1");
  CHECK_EQ(shape_of({six, six, icmp, icmp}), "1 1 1 1");
}

TEST("a merged packet does not exceed the largest IP packet") {
  Stream s;
  std::vector<Bytes> batch;
  for (int i = 0; i < 90; i++) batch.push_back(s.tcp_next(1432));
  const std::vector<Written> written = run(batch);
  CHECK_EQ(shape(written), "45 45");
  CHECK_EQ(written[0].packet.size(), 40 + 45 * 1432U);

  // To the byte: 40 + 5 × 13099 = 65535.
  Stream exact;
  batch.clear();
  for (int i = 0; i < 6; i++) batch.push_back(exact.tcp_next(13099));
  CHECK_EQ(shape_of(batch), "5 1");
  Stream over;
  batch.clear();
  for (int i = 0; i < 5; i++) batch.push_back(over.tcp_next(13100));
  CHECK_EQ(shape_of(batch), "4 1");
  CHECK_EQ(shape_of(batch, {.max_bytes = 1000000}), "4 1");
}

TEST("a merged packet has 1023 segments at most, a batch 65534 packets") {
  Stream s;
  std::vector<Bytes> batch;
  for (int i = 0; i < 1024; i++) batch.push_back(s.udp_next(32));
  CHECK_EQ(shape_of(batch, {.max_segments = 1000000}), "1023 1");
  Coalescer coalescer(100000);
  size_t taken = 0;
  while (taken < 100000 && coalescer.add(batch[0])) taken++;
  CHECK_EQ(taken, 65534U);
}

TEST("the number of segments and the size obey the options") {
  const auto with = [](const CoalescerOptions& options) {
    Stream s;
    std::vector<Bytes> batch;
    for (int i = 0; i < 130; i++) batch.push_back(s.udp_next(32));
    return shape_of(batch, options);
  };
  CHECK_EQ(with({}), "64 64 2");
  CHECK_EQ(with({.max_segments = 128}), "128 2");
  CHECK_EQ(with({.max_segments = 65}), "65 65");
  CHECK_EQ(with({.max_bytes = 28 + 32 * 100, .max_segments = 1000}), "100 30");
  CHECK_EQ(with({.max_bytes = 28 + 32 * 100 - 1, .max_segments = 1000}), "99 31");
  CHECK_EQ(with({.max_segments = 1000000}), "130");
}

TEST("TCP and UDP merging can be switched off on their own, also between batches") {
  Stream t;
  Stream u;
  const std::vector<Bytes> batch = {t.tcp_next(100), t.tcp_next(100), u.udp_next(100), u.udp_next(100)};
  CHECK_EQ(shape_of(batch, {.merge_tcp = false}), "1 1 2");
  CHECK_EQ(shape_of(batch, {.merge_udp = false}), "2 1 1");
  CHECK_EQ(shape_of(batch, {.merge_tcp = false, .merge_udp = false}), "1 1 1 1");
  Coalescer coalescer(10);
  std::string error;
  CHECK_EQ(shape(coalesce(coalescer, batch, error)), "2 2");
  coalescer.set_options({.merge_udp = false});
  CHECK_EQ(shape(coalesce(coalescer, batch, error)), "2 1 1");
  CHECK_EQ(error, "");
}

TEST("a full batch refuses packets and takes them after a reset") {
  Stream s;
  std::vector<Bytes> packets = {s.tcp_next(100), s.tcp_next(100), s.tcp_next(100)};
  Coalescer coalescer(2);
  CHECK(coalescer.add(packets[0]));
  CHECK(coalescer.add(packets[1]));
  CHECK(!coalescer.add(packets[2]));
  CHECK_EQ(coalescer.packet_count(), 2U);
  coalescer.finish();
  CHECK_EQ(coalescer.size(), 1U);
  coalescer.reset();
  CHECK(coalescer.empty());
  CHECK(coalescer.add(packets[2]));
  coalescer.finish();
  CHECK_EQ(coalescer.size(), 1U);
  CHECK_EQ(coalescer.item(0).packets, 1U);
}

TEST("a refused item can be replayed as the packets it was made of, while the others stay merged") {
  Stream t;
  Stream u;
  std::vector<Bytes> sent;
  for (int i = 0; i < 3; i++) {
    t.tcp.flags = i == 2 ? kAck | kPsh : kAck;
    sent.push_back(t.tcp_next(700));
    sent.push_back(u.udp_next(300));
  }
  std::vector<Bytes> memory = sent;
  Coalescer coalescer(10);
  for (Bytes& packet : memory) CHECK(coalescer.add(packet));
  coalescer.finish();
  CHECK_EQ(coalescer.size(), 2U);
  const Bytes udp_before = gather(coalescer.item(1).iovecs);

  CHECK_EQ(coalescer.restore(0), 3U);
  for (size_t i = 0; i < 3; i++) CHECK(gather(coalescer.original(0, i), 1) == sent[2 * i]);
  CHECK(gather(coalescer.original(0, 1), 1) == sent[2]);  // backwards too
  // After one that has a vnet header of its own.
  CHECK_EQ(coalescer.item(1).packets, 3U);
  Bytes plain(kVnetHeaderSize, 0);
  plain.insert(plain.end(), sent[0].begin(), sent[0].end());
  CHECK(gather(coalescer.original(0, 0), 0) == plain);
  CHECK_EQ(coalescer.restore(0), 3U);  // and twice
  CHECK(gather(coalescer.original(0, 0), 1) == sent[0]);
  CHECK(gather(coalescer.item(1).iovecs) == udp_before);
  CHECK_EQ(coalescer.restore(1), 3U);
  for (size_t i = 0; i < 3; i++) CHECK(gather(coalescer.original(1, i), 1) == sent[2 * i + 1]);
  CHECK(gather(coalescer.original(0, 2), 1) == sent[4]);  // the former one again

  coalescer.reset();
  t.tcp.flags = kAck;
  std::vector<Bytes> next = {u.udp_next(300), u.udp_next(300), t.tcp_next(700), t.tcp_next(700), t.tcp_next(700)};
  sent = next;
  for (Bytes& packet : next) CHECK(coalescer.add(packet));
  coalescer.finish();
  CHECK_EQ(coalescer.restore(1), 3U);
  CHECK(gather(coalescer.original(1, 2), 1) == sent[4]);
}

// Random traffic: several flows, most packets in order, with every kind of exception thrown in.
std::vector<Bytes> random_batch(Random& random, std::vector<Stream>& streams) {
  std::vector<Bytes> batch;
  std::deque<Bytes> delayed;
  const size_t size = 1 + random.below(120);
  const size_t usual = 1 + random.below(900);
  while (batch.size() < size) {
    Stream& s = streams[random.below(streams.size())];
    const size_t burst = 1 + random.below(6);
    for (size_t i = 0; i < burst && batch.size() < size; i++) {
      const Ip ip = s.ip;
      const Tcp tcp = s.tcp;
      size_t length = usual;
      switch (random.below(24)) {
        case 0:
          length = random.below(usual + 1);
          break;
        case 1:
          length = random.below(1400);
          break;
        case 2:
          s.ip.ttl = static_cast<uint8_t>(60 + random.below(5));
          break;
        case 3:
          s.ip.tos = random.byte();
          break;
        case 4:
          s.ip.fragment = static_cast<uint16_t>(random.one_in(2) ? 0x4000 : 0);
          break;
        case 5:
          s.ip.id = static_cast<uint16_t>(random.word());
          break;
        case 6:
          s.tcp.flags = random.byte();
          break;
        case 7:
          s.tcp.flags |= kPsh;
          break;
        case 8:
          s.tcp.ack++;
          break;
        case 9:
          s.tcp.options = timestamps(random.word() % 3, 1);
          break;
        case 10:
          s.tcp.sequence += random.word() % 3;
          break;
        case 11:
          s.ip.options = Bytes(random.below(3) * 4, 1);
          break;
        case 12:
          s.ip.fragment = static_cast<uint16_t>(random.word());
          break;
        case 13:
          s.tcp.window = static_cast<uint16_t>(random.below(3));
          break;
        default:
          break;
      }
      s.udp.checksum = !random.one_in(20);
      Bytes packet = s.udp.source_port % 2 == 0 ? s.tcp_next(length) : s.udp_next(length);
      // What changed for one packet only goes back.
      s.ip.options = ip.options;
      s.tcp.flags = tcp.flags;
      if ((s.ip.fragment & 0xbfff) != 0) s.ip.fragment = ip.fragment;
      if (random.one_in(30)) packet[random.below(packet.size())] ^= static_cast<uint8_t>(1 << random.below(8));
      if (random.one_in(60)) packet.resize(1 + random.below(packet.size()));
      if (random.one_in(25)) {
        delayed.push_back(std::move(packet));
      } else {
        batch.push_back(std::move(packet));
      }
      if (!delayed.empty() && random.one_in(5)) {
        batch.push_back(std::move(delayed.front()));
        delayed.pop_front();
      }
    }
  }
  return batch;
}

TEST("random traffic: no byte is lost, invented or reordered within a flow") {
  Random random(7);
  size_t packets = 0;
  size_t items = 0;
  for (int round = 0; round < 3000 && passing(); round++) {
    std::vector<Stream> streams(1 + random.below(random.one_in(4) ? 24 : 5));
    for (size_t i = 0; i < streams.size(); i++) {
      streams[i].tcp.source_port = streams[i].udp.source_port = static_cast<uint16_t>(40000 + i);
      streams[i].tcp.sequence = random.word();
      streams[i].ip.id = static_cast<uint16_t>(random.word());
      streams[i].ip.fragment = random.one_in(2) ? 0x4000 : 0;
    }
    const CoalescerOptions options = {.merge_tcp = !random.one_in(10),
                                      .merge_udp = !random.one_in(10),
                                      .max_bytes = random.one_in(3) ? 1 + random.below(65535) : 65535,
                                      .max_segments = 1 + random.below(100)};
    Coalescer coalescer(200, options);
    for (int batches = 0; batches < 2; batches++) {
      const std::vector<Bytes> batch = random_batch(random, streams);
      std::string error;
      const std::vector<Written> written = coalesce(coalescer, batch, error);
      CHECK_EQ_NOTE(error, "", "round " + show(round));
      packets += batch.size();
      items += written.size();
    }
  }
  // The traffic must be mergeable enough for the invariants to mean something.
  CHECK(items * 3 < packets * 2);
}

}  // namespace
}  // namespace tsflannel::testing
