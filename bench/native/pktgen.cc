// Small packets and request/response load for the benchmark.
//
//   pktgen send    ADDRESS PORT FLOWS SIZE     lines "TRIAL RATE SECONDS" in, "TRIAL SENT SECONDS" out
//   pktgen receive ADDRESS PORT FLOWS          lines "TRIAL" (start counting it) or "?" in, "TRIAL RECEIVED" out
//   pktgen serve   ADDRESS PORT                echoes on every TCP connection
//   pktgen rr      ADDRESS PORT CONNECTIONS SIZE SECONDS
//                                              one request in flight per connection; prints "COUNT SECONDS" and then
//                                              the round-trip times in microseconds, one a line
//
// Flows differ in destination port (PORT, PORT + 1, …) and are interleaved packet by packet, which is the hardest case
// for anything that merges packets of one flow. Each datagram begins with the number of its trial, so that one that
// comes late is not counted in the next trial.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

// At 200 000 packets a second this is 800 packets, which fit the shortest queue on the way (txqueuelen 1000).
constexpr std::chrono::milliseconds kCatchUp{4};

// One sendmmsg: small enough that pacing stays even at 20 000 packets a second, large enough for a million.
constexpr size_t kBatch = 32;
// The receiver must not be the bottleneck: room for 20 ms of a million packets a second.
constexpr int kSocketBuffer = 16 << 20;

[[noreturn]] void fail(std::string_view operation) {
  std::fprintf(stderr, "pktgen: cannot %.*s: %s\n", static_cast<int>(operation.size()), operation.data(),
               std::strerror(errno));
  std::exit(1);
}

sockaddr_in address_of(const char* text, unsigned port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  if (inet_pton(AF_INET, text, &address.sin_addr) != 1) {
    errno = EINVAL;
    fail("read the address");
  }
  return address;
}

int open_socket(int type) {
  const int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
  if (fd < 0) fail("open a socket");
  return fd;
}

void set_option(int fd, int level, int name, int value) {
  if (setsockopt(fd, level, name, &value, sizeof value) < 0) fail("set a socket option");
}

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

class Sender {
 public:
  Sender(const char* address, unsigned port, size_t flows, size_t size) : payload_(std::max(size, sizeof(uint32_t))) {
    fd_ = open_socket(SOCK_DGRAM);
    set_option(fd_, SOL_SOCKET, SO_SNDBUFFORCE, kSocketBuffer);
    for (size_t flow = 0; flow < flows; flow++) {
      targets_.push_back(address_of(address, port + static_cast<unsigned>(flow)));
    }
    vector_ = {payload_.data(), payload_.size()};
    for (auto& message : messages_) {
      message.msg_hdr.msg_iov = &vector_;
      message.msg_hdr.msg_iovlen = 1;
      message.msg_hdr.msg_namelen = flows == 1 ? 0 : sizeof(sockaddr_in);
    }
    // One flow is sent as an application sends it; without this the kernel looks the route up for every packet.
    if (flows == 1 && connect(fd_, reinterpret_cast<const sockaddr*>(targets_.data()), sizeof(sockaddr_in)) < 0) {
      fail("connect");
    }
  }

  // Sends at an even pace. A sender that was held up (both hosts and both ends share the processors) catches up, but
  // never for more than kCatchUp: a longer burst would measure the queues and not the path.
  uint64_t run(uint32_t trial, double rate, double seconds) {
    std::memcpy(payload_.data(), &trial, sizeof trial);
    const auto interval =
        std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(double{kBatch} / rate));
    const auto end = Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
    uint64_t sent = 0;
    for (auto due = Clock::now(); due < end;) {
      std::this_thread::sleep_until(due);
      sent += send_batch();
      due = std::max(due + interval, Clock::now() - kCatchUp);
    }
    return sent;
  }

 private:
  uint64_t send_batch() {
    for (auto& message : messages_) {
      message.msg_hdr.msg_name = targets_.size() == 1 ? nullptr : &targets_[next_];
      next_ = (next_ + 1) % targets_.size();
    }
    for (size_t done = 0; done < kBatch;) {
      const int n = sendmmsg(fd_, messages_.data() + done, static_cast<unsigned>(kBatch - done), 0);
      if (n > 0) {
        done += static_cast<size_t>(n);
      } else if (errno == ECONNREFUSED || errno == ENOBUFS || errno == EPERM) {
        // The packet in question counts as sent and will be missing at the other end, as it should.
        done++;
      } else if (errno != EINTR && errno != EAGAIN) {
        fail("send");
      }
    }
    return kBatch;
  }

  int fd_;
  std::vector<uint8_t> payload_;
  iovec vector_{};
  std::array<mmsghdr, kBatch> messages_{};
  std::vector<sockaddr_in> targets_;
  size_t next_ = 0;
};

int send_main(char** args) {
  // Sleeps end within microseconds instead of the default 50.
  prctl(PR_SET_TIMERSLACK, 1UL);
  Sender sender(args[0], static_cast<unsigned>(std::atoi(args[1])), static_cast<size_t>(std::atoi(args[2])),
                static_cast<size_t>(std::atoi(args[3])));
  uint32_t trial = 0;
  double rate = 0;
  double seconds = 0;
  while (std::cin >> trial >> rate >> seconds) {
    const auto start = Clock::now();
    const uint64_t sent = sender.run(trial, rate, seconds);
    std::printf("%u %lu %.6f\n", trial, static_cast<unsigned long>(sent), seconds_since(start));
    std::fflush(stdout);
  }
  return 0;
}

class Receiver {
 public:
  Receiver(const char* address, unsigned port, unsigned flows) {
    for (unsigned flow = 0; flow < flows; flow++) {
      const int fd = open_socket(SOCK_DGRAM | SOCK_NONBLOCK);
      set_option(fd, SOL_SOCKET, SO_RCVBUFFORCE, kSocketBuffer);
      const sockaddr_in local = address_of(address, port + flow);
      if (bind(fd, reinterpret_cast<const sockaddr*>(&local), sizeof local) < 0) fail("bind");
      polled_.push_back({fd, POLLIN, 0});
    }
    polled_.push_back({STDIN_FILENO, POLLIN, 0});
    for (size_t i = 0; i < kBatch; i++) {
      vectors_[i] = {heads_[i].data(), heads_[i].size()};
      messages_[i].msg_hdr.msg_iov = &vectors_[i];
      messages_[i].msg_hdr.msg_iovlen = 1;
    }
  }

  int run() {
    for (;;) {
      if (poll(polled_.data(), polled_.size(), -1) < 0 && errno != EINTR) fail("poll");
      for (size_t i = 0; i + 1 < polled_.size(); i++) {
        if (polled_[i].revents != 0) drain(polled_[i].fd);
      }
      if (polled_.back().revents != 0 && !obey()) return 0;
    }
  }

 private:
  // The rest of a longer datagram is cut off by the kernel: only the trial number is of interest.
  void drain(int fd) {
    for (;;) {
      const int n = recvmmsg(fd, messages_.data(), kBatch, 0, nullptr);
      if (n <= 0) return;
      for (size_t i = 0; i < static_cast<size_t>(n); i++) {
        uint32_t trial = 0;
        std::memcpy(&trial, heads_[i].data(), sizeof trial);
        if (messages_[i].msg_len >= sizeof trial && trial == trial_) received_++;
      }
      if (static_cast<size_t>(n) < kBatch) return;
    }
  }

  bool obey() {
    std::array<char, 256> text{};
    const ssize_t n = read(STDIN_FILENO, text.data(), text.size());
    if (n <= 0) return false;
    input_.append(text.data(), static_cast<size_t>(n));
    for (size_t end = input_.find('\n'); end != std::string::npos; end = input_.find('\n')) {
      if (input_[0] != '?') {
        trial_ = static_cast<uint32_t>(std::stoul(input_.substr(0, end)));
        received_ = 0;
      }
      input_.erase(0, end + 1);
      std::printf("%u %lu\n", trial_, static_cast<unsigned long>(received_));
      std::fflush(stdout);
    }
    return true;
  }

  std::vector<pollfd> polled_;
  std::array<std::array<uint8_t, 8>, kBatch> heads_{};
  std::array<iovec, kBatch> vectors_{};
  std::array<mmsghdr, kBatch> messages_{};
  std::string input_;
  uint32_t trial_ = 0;
  uint64_t received_ = 0;
};

int receive_main(char** args) {
  Receiver receiver(args[0], static_cast<unsigned>(std::atoi(args[1])), static_cast<unsigned>(std::atoi(args[2])));
  std::printf("ready\n");
  std::fflush(stdout);
  return receiver.run();
}

int serve_main(char** args) {
  const int listener = open_socket(SOCK_STREAM | SOCK_NONBLOCK);
  set_option(listener, SOL_SOCKET, SO_REUSEADDR, 1);
  const sockaddr_in local = address_of(args[0], static_cast<unsigned>(std::atoi(args[1])));
  if (bind(listener, reinterpret_cast<const sockaddr*>(&local), sizeof local) < 0) fail("bind");
  if (listen(listener, 256) < 0) fail("listen");
  const int poller = epoll_create1(EPOLL_CLOEXEC);
  const auto watch = [poller](int fd) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) < 0) fail("watch a connection");
  };
  watch(listener);
  std::printf("ready\n");
  std::fflush(stdout);
  std::array<epoll_event, 64> events{};
  std::array<char, 65536> data{};
  for (;;) {
    const int n = epoll_wait(poller, events.data(), static_cast<int>(events.size()), -1);
    for (int i = 0; i < n; i++) {
      const int fd = events[static_cast<size_t>(i)].data.fd;
      if (fd == listener) {
        const int connection = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (connection < 0) continue;
        set_option(connection, IPPROTO_TCP, TCP_NODELAY, 1);
        watch(connection);
        continue;
      }
      const ssize_t got = recv(fd, data.data(), data.size(), 0);
      if (got <= 0 || send(fd, data.data(), static_cast<size_t>(got), MSG_NOSIGNAL) != got) close(fd);
    }
  }
}

struct Connection {
  int fd;
  size_t missing;
  Clock::time_point asked;
};

int rr_main(char** args) {
  const size_t size = static_cast<size_t>(std::atoi(args[3]));
  const double duration = std::atof(args[4]);
  const sockaddr_in server = address_of(args[0], static_cast<unsigned>(std::atoi(args[1])));
  const int poller = epoll_create1(EPOLL_CLOEXEC);
  std::vector<Connection> connections(static_cast<size_t>(std::atoi(args[2])));
  std::vector<char> request(size, 'x');
  std::vector<char> answer(size);
  const auto ask = [&](Connection& connection) {
    connection.missing = size;
    connection.asked = Clock::now();
    if (send(connection.fd, request.data(), size, MSG_NOSIGNAL) != static_cast<ssize_t>(size)) fail("send a request");
  };
  for (auto& connection : connections) {
    connection.fd = open_socket(SOCK_STREAM);
    if (connect(connection.fd, reinterpret_cast<const sockaddr*>(&server), sizeof server) < 0) fail("connect");
    set_option(connection.fd, IPPROTO_TCP, TCP_NODELAY, 1);
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.ptr = &connection;
    if (epoll_ctl(poller, EPOLL_CTL_ADD, connection.fd, &event) < 0) fail("watch a connection");
  }
  std::vector<float> times;
  times.reserve(1 << 20);
  const auto start = Clock::now();
  for (auto& connection : connections) ask(connection);
  std::array<epoll_event, 64> events{};
  while (seconds_since(start) < duration) {
    const int n = epoll_wait(poller, events.data(), static_cast<int>(events.size()), 1000);
    if (n <= 0) continue;
    for (int i = 0; i < n; i++) {
      Connection& connection = *static_cast<Connection*>(events[static_cast<size_t>(i)].data.ptr);
      const ssize_t got = recv(connection.fd, answer.data(), connection.missing, 0);
      if (got <= 0) fail("receive an answer");
      connection.missing -= static_cast<size_t>(got);
      if (connection.missing > 0) continue;
      times.push_back(static_cast<float>(seconds_since(connection.asked) * 1e6));
      ask(connection);
    }
  }
  std::printf("%zu %.6f\n", times.size(), seconds_since(start));
  for (const float time : times) std::printf("%.1f\n", static_cast<double>(time));
  return 0;
}

struct Command {
  std::string_view name;
  int arguments;
  int (*run)(char** args);
};

constexpr std::array<Command, 4> kCommands{{
    {"send", 4, send_main},
    {"receive", 3, receive_main},
    {"serve", 2, serve_main},
    {"rr", 5, rr_main},
}};

}  // namespace

int main(int argc, char** argv) {
  for (const auto& command : kCommands) {
    if (argc == 2 + command.arguments && command.name == argv[1]) return command.run(argv + 2);
  }
  std::fprintf(stderr, "usage: pktgen send|receive|serve|rr ARGUMENT...; see the head of pktgen.cc\n");
  return 2;
}
