// A driver of FAKE_DEVICES devices, for tests of device/cuda_back_end.h; below 0 it fails as one without
// devices does.
extern "C" {

int cuInit(unsigned) { return FAKE_DEVICES < 0 ? 100 : 0; }
int cuDeviceGetCount(int* devices) {
  *devices = FAKE_DEVICES;
  return 0;
}
int cuGetErrorString(int error, const char** text) {
  *text = "no CUDA-capable device is detected";
  return error == 100 ? 0 : 1;
}
}
