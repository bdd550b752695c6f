/* CUDA's runtime, driver and BLAS as far as torch needs them to start and to train, on a machine without a GPU.
 *
 * Device memory is host memory, copies copy, and a kernel does nothing but take time: the device has one order of work,
 * in which each kernel takes KERNEL_SECONDS (default 0) of the host's clock. Events lie in that order, and who waits
 * for one sleeps. A result is whatever the memory held, zero at first.
 *
 * The environment: KERNEL_SECONDS, and DEVICES (default 1).
 */
#define _GNU_SOURCE
#include <cuda_runtime_api.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#undef cudaGetDeviceProperties
#define RUNTIME __attribute__((visibility("default"))) cudaError_t
/* Functions of which only the name and what they hand out count; the headers know them with all their arguments. */
#define NAMED(name, arguments) int no_##name(arguments) __asm__(#name); int no_##name(arguments)
#define NOTHING(name) NAMED(name, ) { return 0; }
#define HANDLE(name) NAMED(name, void **handle) { *handle = calloc(1, 256); return 0; }
#define STAGED 65536 /* bytes up to which a copy out of any memory is staged, and nobody waits */

/* ---- the device's order of work */

static double done; /* when the device will have done what it was given, in the host's clock */
int large_pageable_copies; /* a host waits for these on a real device, though they are called asynchronous */

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}
static double number(const char *name, double otherwise) {
    const char *text = getenv(name);
    return text ? atof(text) : otherwise;
}
static double when_idle(void) { return done > now() ? done : now(); }
static int launch(void) { done = when_idle() + number("KERNEL_SECONDS", 0); return 0; }
static int wait_until(double moment) {
    double seconds = moment - now();
    if (seconds > 0) {
        struct timespec t = {(time_t)seconds, (long)(1e9 * (seconds - (time_t)seconds))};
        nanosleep(&t, 0);
    }
    return 0;
}
RUNTIME cudaLaunchKernel(const void *f, dim3 g, dim3 b, void **a, size_t s, cudaStream_t t) { return launch(); }
RUNTIME cudaLaunchKernelExC(const cudaLaunchConfig_t *c, const void *f, void **a) { return launch(); }
int __cudaLaunchKernel() { return launch(); }
int cuLaunchKernel() { return launch(); }
RUNTIME cudaDeviceSynchronize(void) { return wait_until(done); }
RUNTIME cudaStreamSynchronize(cudaStream_t s) { return wait_until(done); }
RUNTIME cudaStreamQuery(cudaStream_t s) { return now() < done ? cudaErrorNotReady : 0; }
RUNTIME cudaEventRecord(cudaEvent_t e, cudaStream_t s) { *(double *)e = when_idle(); return 0; }
RUNTIME cudaEventRecordWithFlags(cudaEvent_t e, cudaStream_t s, unsigned f) { return cudaEventRecord(e, s); }
RUNTIME cudaEventQuery(cudaEvent_t e) { return now() < *(double *)e ? cudaErrorNotReady : 0; }
RUNTIME cudaEventSynchronize(cudaEvent_t e) { return wait_until(*(double *)e); }
RUNTIME cudaEventElapsedTime(float *ms, cudaEvent_t a, cudaEvent_t b) {
    *ms = 1e3 * (*(double *)b - *(double *)a);
    return cudaEventQuery(b);
}
HANDLE(cudaEventCreate)
HANDLE(cudaEventCreateWithFlags)
HANDLE(cudaStreamCreateWithPriority)
HANDLE(cudaStreamCreateWithFlags)
NOTHING(cudaEventDestroy)
NOTHING(cudaStreamDestroy)
NOTHING(cudaStreamWaitEvent)

/* ---- memory */

static struct { char *start; size_t size; } pinned[65536];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int find_pinned(const void *p) {
    for (int i = 0; i < 65536; i++)
        if (pinned[i].start && (char *)p >= pinned[i].start && (char *)p < pinned[i].start + pinned[i].size) return i;
    return -1;
}
static int pin(void *p, size_t size) {
    pthread_mutex_lock(&lock);
    int i = 0;
    while (pinned[i].start) i++;
    pinned[i].start = p, pinned[i].size = size;
    pthread_mutex_unlock(&lock);
    return 0;
}
static int unpin(void *p) {
    pthread_mutex_lock(&lock);
    int i = find_pinned(p);
    if (i >= 0) pinned[i].start = 0;
    pthread_mutex_unlock(&lock);
    return 0;
}
static int is_pinned(const void *p) {
    pthread_mutex_lock(&lock);
    int found = find_pinned(p) >= 0;
    pthread_mutex_unlock(&lock);
    return found;
}
RUNTIME cudaMalloc(void **p, size_t n) {
    n = (n + 1023) / 512 * 512;
    return (*p = aligned_alloc(512, n)) ? (memset(*p, 0, n), 0) : cudaErrorMemoryAllocation;
}
RUNTIME cudaFree(void *p) { free(p); return 0; }
RUNTIME cudaHostAlloc(void **p, size_t n, unsigned f) { return cudaMalloc(p, n) || pin(*p, n); }
RUNTIME cudaFreeHost(void *p) { unpin(p); return cudaFree(p); }
RUNTIME cudaHostRegister(void *p, size_t n, unsigned f) { return pin(p, n); }
RUNTIME cudaHostUnregister(void *p) { return unpin(p); }
RUNTIME cudaPointerGetAttributes(struct cudaPointerAttributes *a, const void *p) {
    memset(a, 0, sizeof *a);
    a->type = is_pinned(p) ? cudaMemoryTypeHost : cudaMemoryTypeUnregistered;
    a->hostPointer = a->devicePointer = (void *)p;
    return 0;
}
RUNTIME cudaMemGetInfo(size_t *free_bytes, size_t *total) {
    *free_bytes = 79ull << 30, *total = 80ull << 30;
    return 0;
}
RUNTIME cudaMemcpyAsync(void *to, const void *from, size_t n, enum cudaMemcpyKind kind, cudaStream_t s) {
    if (kind == cudaMemcpyHostToDevice && n > STAGED && !is_pinned(from)) large_pageable_copies++;
    memmove(to, from, n);
    return 0;
}
RUNTIME cudaMemcpy(void *to, const void *from, size_t n, enum cudaMemcpyKind k) { memmove(to, from, n); return 0; }
RUNTIME cudaMemset(void *p, int value, size_t n) { memset(p, value, n); return 0; }
RUNTIME cudaMemsetAsync(void *p, int value, size_t n, cudaStream_t s) { memset(p, value, n); return 0; }
HANDLE(cudaGetSymbolAddress)
NOTHING(cudaMemcpyToSymbol)

/* ---- devices */

static __thread int device;

RUNTIME cudaGetDeviceCount(int *n) { *n = number("DEVICES", 1); return 0; }
RUNTIME cudaGetDevice(int *d) { *d = device; return 0; }
RUNTIME cudaSetDevice(int d) { device = d; return d < number("DEVICES", 1) ? 0 : cudaErrorInvalidDevice; }
RUNTIME cudaDriverGetVersion(int *v) { *v = CUDART_VERSION; return 0; }
RUNTIME cudaRuntimeGetVersion(int *v) { *v = CUDART_VERSION; return 0; }
RUNTIME cudaDeviceGetStreamPriorityRange(int *low, int *high) { *low = *high = 0; return 0; }
RUNTIME cudaDeviceCanAccessPeer(int *can, int a, int b) { *can = 0; return 0; }
RUNTIME cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr which, int d) {
    int is_major = which == cudaDevAttrComputeCapabilityMajor, is_minor = which == cudaDevAttrComputeCapabilityMinor;
    *value = is_major ? 9 : is_minor ? 0 : 1024;
    return 0;
}
RUNTIME cudaGetDeviceProperties(struct cudaDeviceProp *p, int d) {
    memset(p, 0, sizeof *p);
    strcpy(p->name, "no kernels");
    p->totalGlobalMem = 80ull << 30, p->major = 9, p->multiProcessorCount = 132, p->warpSize = 32;
    p->maxThreadsPerBlock = 1024, p->maxThreadsPerMultiProcessor = 2048, p->l2CacheSize = 50 << 20;
    p->sharedMemPerBlock = 49152, p->sharedMemPerBlockOptin = 232448, p->sharedMemPerMultiprocessor = 233472;
    p->regsPerBlock = p->regsPerMultiprocessor = 65536, p->textureAlignment = 512, p->memoryBusWidth = 5120;
    p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024, p->maxThreadsDim[2] = 64;
    p->maxGridSize[0] = 2147483647, p->maxGridSize[1] = p->maxGridSize[2] = 65535;
    return 0;
}
RUNTIME cudaDeviceGetPCIBusId(char *text, int n, int d) { snprintf(text, n, "0000:0%d:00.0", d); return 0; }
RUNTIME cudaFuncGetAttributes(struct cudaFuncAttributes *a, const void *f) {
    memset(a, 0, sizeof *a);
    a->maxThreadsPerBlock = 1024, a->numRegs = 32, a->binaryVersion = a->ptxVersion = 90;
    a->maxDynamicSharedSizeBytes = 232448;
    return 0;
}
RUNTIME cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *n, const void *f, int b, size_t s, unsigned g) {
    *n = 2;
    return 0;
}
RUNTIME cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *n, const void *f, int b, size_t s) { *n = 2; return 0; }
RUNTIME cudaStreamIsCapturing(cudaStream_t s, enum cudaStreamCaptureStatus *c) { *c = 0; return 0; }
int no_capture(cudaStream_t s, int *status) __asm__("cudaStreamGetCaptureInfo");
int no_capture(cudaStream_t s, int *status) { *status = 0; return 0; }
const char *cudaGetErrorName(cudaError_t e) { return "no kernels"; }
const char *cudaGetErrorString(cudaError_t e) { return "no kernels"; }
NOTHING(cudaDeviceEnablePeerAccess)
NOTHING(cudaThreadExchangeStreamCaptureMode)
NOTHING(cudaGetLastError)
NOTHING(cudaPeekAtLastError)
NOTHING(cudaFuncSetAttribute)
void **__cudaRegisterFatBinary(void *f) { static void *binary; return &binary; }
NOTHING(__cudaRegisterFatBinaryEnd)
NOTHING(__cudaUnregisterFatBinary)
NOTHING(__cudaRegisterFunction)
NOTHING(__cudaRegisterVar)
NOTHING(__cudaPushCallConfiguration)
NOTHING(__cudaPopCallConfiguration)
int __cudaGetKernel(void **kernel, const void *f) { *kernel = (void *)f; return 0; }

/* ---- the driver, of which torch asks by name */

static int nothing(void) { return 0; }
NOTHING(cuCtxGetCurrent)
NOTHING(cuCtxSetCurrent)
NOTHING(cuDeviceGet)
NOTHING(cuDeviceGetAttribute)
NOTHING(cuDevicePrimaryCtxRetain)
NOTHING(cuFuncGetAttribute)
NOTHING(cuFuncSetAttribute)
NOTHING(cuFuncSetCacheConfig)
NOTHING(cuLaunchCooperativeKernel)
NOTHING(cuLinkAddData_v2)
NOTHING(cuLinkComplete)
NOTHING(cuLinkCreate_v2)
NOTHING(cuModuleGetFunction)
NOTHING(cuModuleLoad)
NOTHING(cuModuleLoadData)
NOTHING(cuModuleLoadDataEx)
NOTHING(cuModuleUnload)
NOTHING(cuOccupancyMaxActiveBlocksPerMultiprocessor)
NOTHING(cuPointerGetAttribute)
NOTHING(cuTensorMapEncodeTiled)
int cuDevicePrimaryCtxGetState(int d, unsigned *flags, int *active) { *flags = *active = 0; return 0; }
int cuGetErrorString(int e, const char **text) { *text = "no kernels"; return 0; }
RUNTIME cudaGetDriverEntryPointByVersion(const char *name, void **f, unsigned version, unsigned long long flags,
                                         enum cudaDriverEntryPointQueryResult *result) {
    if (result) *result = 0;
    *f = !strcmp(name, "cuDevicePrimaryCtxGetState") ? (void *)cuDevicePrimaryCtxGetState
         : !strcmp(name, "cuGetErrorString")         ? (void *)cuGetErrorString
                                                     : (void *)nothing;
    return 0;
}

/* ---- BLAS */

HANDLE(cublasCreate_v2)
HANDLE(cublasLtCreate)
HANDLE(cublasLtMatmulDescCreate)
HANDLE(cublasLtMatrixLayoutCreate)
HANDLE(cublasLtMatmulPreferenceCreate)
int cublasGetMathMode(void *h, int *mode) { *mode = 0; return 0; }
int cublasGetPointerMode_v2(void *h, int *mode) { *mode = 0; return 0; }
size_t cublasLtGetVersion() { return 130000; }
int cublasLtMatmulAlgoGetHeuristic(void *h, void *op, void *a, void *b, void *c, void *d, void *p, int asked, void *r,
                                   int *found) {
    *found = 1;
    return 0;
}
#define PRODUCT(name) int name() { return launch(); }
PRODUCT(cublasSgemm_v2)
PRODUCT(cublasDgemm_v2)
PRODUCT(cublasGemmEx)
PRODUCT(cublasSgemmEx)
PRODUCT(cublasGemmStridedBatchedEx)
PRODUCT(cublasSgemmStridedBatched)
PRODUCT(cublasLtMatmul)
NOTHING(cublasDestroy_v2)
NOTHING(cublasSetStream_v2)
NOTHING(cublasSetWorkspace_v2)
NOTHING(cublasSetMathMode)
NOTHING(cublasSetPointerMode_v2)
NOTHING(cublasSetSmCountTarget)
NOTHING(cublasLtDestroy)
NOTHING(cublasLtMatmulDescDestroy)
NOTHING(cublasLtMatmulDescSetAttribute)
NOTHING(cublasLtMatrixLayoutDestroy)
NOTHING(cublasLtMatrixLayoutSetAttribute)
NOTHING(cublasLtMatmulPreferenceDestroy)
NOTHING(cublasLtMatmulPreferenceSetAttribute)
