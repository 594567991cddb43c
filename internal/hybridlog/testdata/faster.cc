// The other side of BenchmarkInMemory: the same work on FASTER in C++, in memory
// (https://github.com/microsoft/FASTER, cc/). With SRC its directory cc/src:
//
//	g++ -std=c++14 -O3 -march=native -DNDEBUG -fpermissive -w -I$SRC -o faster faster.cc \
//	    $SRC/core/{address,lss_allocator,thread}.cc -ltbb -luuid -lpthread
//	KVSTORE_FASTER=$PWD/faster go test -run '^$' -bench InMemory ./internal/hybridlog
//
// The argument is the number of keys, which it sets to begin with. Then it reads
// requests, all numbers little endian, and answers each with the seconds that it
// took:
//
//	request  work uint32, threads uint32, count uint32, key number uint32 x count
//	answer   seconds float64
//
// Work 0 reads and sets by turns, 1 adds one to each. As in FASTER's own benchmark
// keys and values are 8 bytes of fixed size and a thread refreshes its epoch every
// 64 operations; unlike there, what is read is copied out.

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "core/faster.h"
#include "device/null_disk.h"

using namespace FASTER::core;

struct Key {
  uint64_t number;

  explicit Key(uint32_t i) : number{i * 0x9e3779b97f4a7c15ull} {}
  static constexpr uint32_t size() { return sizeof(Key); }
  KeyHash GetHash() const { return KeyHash{Utility::GetHashCode(number)}; }
  bool operator==(const Key& other) const { return number == other.number; }
  bool operator!=(const Key& other) const { return number != other.number; }
};

struct Value {
  std::atomic<uint64_t> number;

  static constexpr uint32_t size() { return sizeof(Value); }
};

template <class Self>
struct Operation : IAsyncContext {
  typedef Key key_t;
  typedef Value value_t;
  Key wanted;
  uint64_t number;

  Operation(uint32_t i, uint64_t n) : wanted{i}, number{n} {}
  const Key& key() const { return wanted; }
  static constexpr uint32_t value_size() { return sizeof(Value); }
  static constexpr uint32_t value_size(const Value&) { return sizeof(Value); }
  Status DeepCopy_Internal(IAsyncContext*& copy) {
    return IAsyncContext::DeepCopy_Internal(static_cast<Self&>(*this), copy);
  }
};

struct Read : Operation<Read> {
  using Operation::Operation;
  void Get(const Value& v) { GetAtomic(v); }
  void GetAtomic(const Value& v) { number = v.number.load(); }
};

struct Upsert : Operation<Upsert> {
  using Operation::Operation;
  void Put(Value& v) { v.number.store(number, std::memory_order_relaxed); }
  bool PutAtomic(Value& v) {
    v.number.store(number);
    return true;
  }
};

struct Add : Operation<Add> {
  using Operation::Operation;
  void RmwInitial(Value& v) { v.number.store(number, std::memory_order_relaxed); }
  void RmwCopy(const Value& old, Value& v) { v.number.store(old.number.load() + number, std::memory_order_relaxed); }
  bool RmwAtomic(Value& v) {
    v.number.fetch_add(number);
    return true;
  }
};

typedef FasterKv<Key, Value, FASTER::device::NullDisk> Store;

static void must(bool ok, const char* what) {
  if (!ok) {
    fprintf(stderr, "faster: %s\n", what);
    exit(1);
  }
}

static void pending(IAsyncContext*, Status) { must(false, "an operation was not done at once"); }

static uint64_t run(Store& store, uint32_t work, const uint32_t* keys, size_t count) {
  uint64_t sum = 0;
  store.StartSession();
  for (size_t i = 0; i < count; i++) {
    if (i % 64 == 0) store.Refresh();
    Status status;
    if (work == 1) {
      Add add{keys[i], 1};
      status = store.Rmw(add, pending, 1);
    } else if (i % 2 == 0) {
      Read read{keys[i], 0};
      status = store.Read(read, pending, 1);
      sum += read.number;
    } else {
      Upsert upsert{keys[i], 0};
      status = store.Upsert(upsert, pending, 1);
    }
    must(status == Status::Ok, "an operation failed");
  }
  store.StopSession();
  return sum;
}

static bool take(void* to, size_t size) {
  for (char* at = static_cast<char*>(to); size > 0;) {
    ssize_t n = read(0, at, size);
    if (n <= 0) return false;
    at += n;
    size -= n;
  }
  return true;
}

int main(int argc, char** argv) {
  must(argc == 2, "usage: faster KEYS");
  const uint64_t count = strtoull(argv[1], nullptr, 10);
  uint64_t buckets = 1;
  while (buckets < count / 2) buckets *= 2;  // as FASTER's benchmark has it
  Store store{buckets, 1ull << 32, ""};
  store.StartSession();
  for (uint64_t i = 0; i < count; i++) {
    if (i % 64 == 0) store.Refresh();
    Upsert upsert{static_cast<uint32_t>(i), 0};
    must(store.Upsert(upsert, pending, 1) == Status::Ok, "loading failed");
  }
  store.StopSession();

  std::atomic<uint64_t> sum{0};  // of what was read
  uint32_t request[3];           // work, threads, count
  std::vector<uint32_t> keys;
  while (take(request, sizeof request)) {
    const size_t threads = request[1];
    keys.resize(request[2]);
    must(take(keys.data(), 4 * keys.size()), "a request ends early");
    auto begin = std::chrono::steady_clock::now();
    std::vector<std::thread> running;
    for (size_t t = 0; t < threads; t++) {
      const size_t from = keys.size() * t / threads, to = keys.size() * (t + 1) / threads;
      running.emplace_back([&, from, to] { sum += run(store, request[0], keys.data() + from, to - from); });
    }
    for (auto& thread : running) thread.join();
    double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    must(write(1, &seconds, sizeof seconds) == sizeof seconds, "the answer cannot be written");
  }
}
