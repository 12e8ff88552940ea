#include <fcntl.h>

#include <cerrno>
#include <memory>

#include "../../../native/core/base/bytes.h"
#include "../../../native/core/base/result.h"
#include "../../../native/core/base/unique_fd.h"
#include "../support/harness.h"

namespace tsflannel::testing {
namespace {

bool is_open(int fd) {
  return ::fcntl(fd, F_GETFD) != -1;
}

int open_null() {
  return ::open("/dev/null", O_RDONLY | O_CLOEXEC);
}

TEST("bytes are loaded and stored in network order at any alignment") {
  uint8_t data[16];
  for (size_t at = 0; at < 8; at++) {
    store_be16(data + at, 0x1234);
    CHECK_EQ(data[at], 0x12);
    CHECK_EQ(data[at + 1], 0x34);
    CHECK_EQ(load_be16(data + at), 0x1234);
    store_be32(data + at, 0x89abcdef);
    CHECK_EQ(data[at], 0x89);
    CHECK_EQ(data[at + 3], 0xef);
    CHECK_EQ(load_be32(data + at), 0x89abcdefU);
    CHECK_EQ(swap_be32(load_raw32(data + at)), 0x89abcdefU);
  }
}

TEST("a result holds a value or an error, and moves") {
  Result<std::unique_ptr<int>> good(std::make_unique<int>(5));
  CHECK(good.ok());
  const std::unique_ptr<int> taken = std::move(good).value();
  CHECK_EQ(*taken, 5);
  const Result<std::unique_ptr<int>> bad(Error{"open(/dev/net/tun)", ENOENT, "flannel0"});
  CHECK(!bad);
  CHECK_EQ(bad.error().code, ENOENT);
  CHECK_EQ(bad.error().detail, "flannel0");
  const Result<void> done;
  CHECK(done.ok());
  const Result<void> failed(Error{"bind", EADDRINUSE, ""});
  CHECK(!failed);
  CHECK_EQ(failed.error().code, EADDRINUSE);
}

TEST("a descriptor is closed exactly once: at the end, on reset, and by its new owner after a move") {
  int raw = -1;
  {
    UniqueFd fd(open_null());
    raw = fd.get();
    CHECK(fd.valid() && is_open(raw));
  }
  CHECK(!is_open(raw));

  UniqueFd first(open_null());
  raw = first.get();
  UniqueFd second(std::move(first));
  CHECK(!first.valid());  // NOLINT(bugprone-use-after-move): a moved-from UniqueFd is empty by contract
  CHECK(is_open(raw));
  UniqueFd third(open_null());
  const int replaced = third.get();
  third = std::move(second);
  CHECK(!is_open(replaced));
  CHECK_EQ(third.get(), raw);
  const int released = third.release();
  CHECK(is_open(released));
  third.reset(released);
  third.reset();
  CHECK(!is_open(released));
}

}  // namespace
}  // namespace tsflannel::testing
