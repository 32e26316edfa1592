// A management library of a machine with one GPU, for tests of device/gpu_monitor.h.
#include <cstring>

namespace {

int g_users = 0;
char g_gpu;

}  // namespace

extern "C" {

int nvmlInit_v2() {
  ++g_users;
  return 0;
}
int nvmlShutdown() {
  --g_users;
  return 0;
}
int nvmlDeviceGetHandleByPciBusId_v2(const char* bus, void** gpu) {
  if (g_users == 0) return 1;
  if (std::strcmp(bus, "0000:3b:00.0") != 0 && std::strcmp(bus, "0000:3c:00.0") != 0) return 6;
  *gpu = bus[6] == 'b' ? &g_gpu : nullptr;
  return 0;
}
int nvmlDeviceGetMemoryInfo(void*, unsigned long long* total_free_used) {
  total_free_used[0] = 80'000'000'000ull;
  total_free_used[1] = 45'800'000'000ull;
  total_free_used[2] = 34'200'000'000ull;
  return 0;
}
// The second GPU is a part of one, which has no utilization.
int nvmlDeviceGetUtilizationRates(void* gpu, unsigned* gpu_memory) {
  if (gpu == nullptr) return 3;
  gpu_memory[0] = 97;
  gpu_memory[1] = 41;
  return 0;
}
}
