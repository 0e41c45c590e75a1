"""CRI messages by Google's protobuf, made from wire numbers written here once more: what our own codec must agree with.

Only what the tests of this directory use, as k8s.io/cri-api's api.proto has it.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

# message: name=number:type, as in api.proto. *: repeated, map: string to string.
_MESSAGES = """
VersionRequest version=1:string
VersionResponse version=1:string runtime_name=2:string runtime_version=3:string runtime_api_version=4:string
Int64Value value=1:int64
UInt64Value value=1:uint64
DNSConfig servers=1:string* searches=2:string* options=3:string*
PortMapping protocol=1:Protocol container_port=2:int32 host_port=3:int32 host_ip=4:string
NamespaceOption network=1:NamespaceMode pid=2:NamespaceMode ipc=3:NamespaceMode target_id=4:string
LinuxSandboxSecurityContext namespace_options=1:NamespaceOption
LinuxPodSandboxConfig cgroup_parent=1:string security_context=2:LinuxSandboxSecurityContext sysctls=3:map
PodSandboxMetadata name=1:string uid=2:string namespace=3:string attempt=4:uint32
PodSandboxConfig metadata=1:PodSandboxMetadata hostname=2:string log_directory=3:string dns_config=4:DNSConfig \
port_mappings=5:PortMapping* labels=6:map annotations=7:map linux=8:LinuxPodSandboxConfig
RunPodSandboxRequest config=1:PodSandboxConfig runtime_handler=2:string
RunPodSandboxResponse pod_sandbox_id=1:string
StopPodSandboxRequest pod_sandbox_id=1:string
StopPodSandboxResponse
RemovePodSandboxRequest pod_sandbox_id=1:string
RemovePodSandboxResponse
PodSandboxStatusRequest pod_sandbox_id=1:string verbose=2:bool
PodSandboxNetworkStatus ip=1:string
Namespace options=2:NamespaceOption
LinuxPodSandboxStatus namespaces=1:Namespace
PodSandboxStatus id=1:string metadata=2:PodSandboxMetadata state=3:PodSandboxState created_at=4:int64 \
network=5:PodSandboxNetworkStatus linux=6:LinuxPodSandboxStatus labels=7:map annotations=8:map
PodSandboxStatusResponse status=1:PodSandboxStatus info=2:map
PodSandboxStateValue state=1:PodSandboxState
PodSandboxFilter id=1:string state=2:PodSandboxStateValue label_selector=3:map
ListPodSandboxRequest filter=1:PodSandboxFilter
PodSandbox id=1:string metadata=2:PodSandboxMetadata state=3:PodSandboxState created_at=4:int64 labels=5:map \
annotations=6:map
ListPodSandboxResponse items=1:PodSandbox*
StreamPodSandboxesRequest filter=1:PodSandboxFilter
StreamPodSandboxesResponse pod_sandboxes=1:PodSandbox*
ImageSpec image=1:string user_specified_image=18:string
KeyValue key=1:string value=2:bytes
Mount container_path=1:string host_path=2:string readonly=3:bool propagation=5:MountPropagation
LinuxContainerResources cpu_period=1:int64 cpu_quota=2:int64 cpu_shares=3:int64 memory_limit_in_bytes=4:int64 \
oom_score_adj=5:int64
Capability add_capabilities=1:string* drop_capabilities=2:string*
LinuxContainerSecurityContext capabilities=1:Capability privileged=2:bool run_as_user=5:Int64Value \
readonly_rootfs=7:bool supplemental_groups=8:int64* no_new_privs=11:bool run_as_group=12:Int64Value \
masked_paths=13:string*
LinuxContainerConfig resources=1:LinuxContainerResources security_context=2:LinuxContainerSecurityContext
ContainerMetadata name=1:string attempt=2:uint32
Device container_path=1:string host_path=2:string permissions=3:string
ContainerConfig metadata=1:ContainerMetadata image=2:ImageSpec command=3:string* args=4:string* working_dir=5:string \
envs=6:KeyValue* mounts=7:Mount* devices=8:Device* labels=9:map annotations=10:map log_path=11:string stdin=12:bool \
stdin_once=13:bool tty=14:bool linux=15:LinuxContainerConfig
CreateContainerRequest pod_sandbox_id=1:string config=2:ContainerConfig sandbox_config=3:PodSandboxConfig
CreateContainerResponse container_id=1:string
StartContainerRequest container_id=1:string
StartContainerResponse
StopContainerRequest container_id=1:string timeout=2:int64
StopContainerResponse
RemoveContainerRequest container_id=1:string
RemoveContainerResponse
ContainerStateValue state=1:ContainerState
ContainerFilter id=1:string state=2:ContainerStateValue pod_sandbox_id=3:string label_selector=4:map
ListContainersRequest filter=1:ContainerFilter
Container id=1:string pod_sandbox_id=2:string metadata=3:ContainerMetadata image=4:ImageSpec image_ref=5:string \
state=6:ContainerState created_at=7:int64 labels=8:map annotations=9:map image_id=10:string
ListContainersResponse containers=1:Container*
ContainerStatusRequest container_id=1:string verbose=2:bool
LinuxContainerUser uid=1:int64 gid=2:int64
ContainerUser linux=1:LinuxContainerUser
ContainerResources linux=1:LinuxContainerResources
ContainerStatus id=1:string metadata=2:ContainerMetadata state=3:ContainerState created_at=4:int64 started_at=5:int64 \
finished_at=6:int64 exit_code=7:int32 image=8:ImageSpec image_ref=9:string reason=10:string message=11:string \
labels=12:map annotations=13:map mounts=14:Mount* log_path=15:string resources=16:ContainerResources \
image_id=17:string user=18:ContainerUser
ContainerStatusResponse status=1:ContainerStatus info=2:map
UpdateContainerResourcesRequest container_id=1:string linux=2:LinuxContainerResources
UpdateContainerResourcesResponse
ExecSyncRequest container_id=1:string cmd=2:string* timeout=3:int64
ExecSyncResponse stdout=1:bytes stderr=2:bytes exit_code=3:int32
ExecRequest container_id=1:string cmd=2:string* tty=3:bool stdin=4:bool stdout=5:bool stderr=6:bool
ExecResponse url=1:string
PortForwardRequest pod_sandbox_id=1:string port=2:int32*
PortForwardResponse url=1:string
RuntimeCondition type=1:string status=2:bool reason=3:string message=4:string
RuntimeStatus conditions=1:RuntimeCondition*
StatusRequest verbose=1:bool
StatusResponse status=1:RuntimeStatus info=2:map
NetworkConfig pod_cidr=1:string
RuntimeConfig network_config=1:NetworkConfig
UpdateRuntimeConfigRequest runtime_config=1:RuntimeConfig
UpdateRuntimeConfigResponse
ContainerStatsRequest container_id=1:string
ContainerAttributes id=1:string metadata=2:ContainerMetadata labels=3:map annotations=4:map
CpuUsage timestamp=1:int64 usage_core_nano_seconds=2:UInt64Value usage_nano_cores=3:UInt64Value
MemoryUsage timestamp=1:int64 working_set_bytes=2:UInt64Value available_bytes=3:UInt64Value
FilesystemIdentifier mountpoint=1:string
FilesystemUsage timestamp=1:int64 fs_id=2:FilesystemIdentifier used_bytes=3:UInt64Value inodes_used=4:UInt64Value
ContainerStats attributes=1:ContainerAttributes cpu=2:CpuUsage memory=3:MemoryUsage writable_layer=4:FilesystemUsage
ContainerStatsResponse stats=1:ContainerStats
ContainerStatsFilter id=1:string pod_sandbox_id=2:string label_selector=3:map
ListContainerStatsRequest filter=1:ContainerStatsFilter
ListContainerStatsResponse stats=1:ContainerStats*
PodSandboxStatsRequest pod_sandbox_id=1:string
PodSandboxAttributes id=1:string metadata=2:PodSandboxMetadata labels=3:map annotations=4:map
LinuxPodSandboxStats cpu=1:CpuUsage memory=2:MemoryUsage containers=5:ContainerStats*
PodSandboxStats attributes=1:PodSandboxAttributes linux=2:LinuxPodSandboxStats
PodSandboxStatsResponse stats=1:PodSandboxStats
GetEventsRequest
ContainerEventResponse container_id=1:string container_event_type=2:ContainerEventType created_at=3:int64 \
pod_sandbox_status=4:PodSandboxStatus containers_statuses=5:ContainerStatus*
ImageFilter image=1:ImageSpec
ListImagesRequest filter=1:ImageFilter
Image id=1:string repo_tags=2:string* repo_digests=3:string* size=4:uint64 uid=5:Int64Value username=6:string
ListImagesResponse images=1:Image*
ImageStatusRequest image=1:ImageSpec verbose=2:bool
ImageStatusResponse image=1:Image info=2:map
AuthConfig username=1:string password=2:string auth=3:string
PullImageRequest image=1:ImageSpec auth=2:AuthConfig
PullImageResponse image_ref=1:string
RemoveImageRequest image=1:ImageSpec
RemoveImageResponse
ImageFsInfoRequest
ImageFsInfoResponse image_filesystems=1:FilesystemUsage* container_filesystems=2:FilesystemUsage*
CheckpointContainerRequest container_id=1:string location=2:string timeout=3:int64
CheckpointContainerResponse
"""
_ENUMS = """
Protocol TCP UDP SCTP
NamespaceMode POD CONTAINER NODE TARGET
PodSandboxState SANDBOX_READY SANDBOX_NOTREADY
ContainerState CONTAINER_CREATED CONTAINER_RUNNING CONTAINER_EXITED CONTAINER_UNKNOWN
MountPropagation PROPAGATION_PRIVATE PROPAGATION_HOST_TO_CONTAINER PROPAGATION_BIDIRECTIONAL
ContainerEventType CONTAINER_CREATED_EVENT CONTAINER_STARTED_EVENT CONTAINER_STOPPED_EVENT CONTAINER_DELETED_EVENT
"""
_FIELD = descriptor_pb2.FieldDescriptorProto


def messages() -> dict[str, Any]:
    """The message classes by name."""
    file = descriptor_pb2.FileDescriptorProto(name="tests/cri.proto", package="runtime.v1", syntax="proto3")
    enums = {line.split()[0]: line.split()[1:] for line in _ENUMS.strip().splitlines()}
    for name, members in enums.items():
        enum = file.enum_type.add(name=name)
        for number, member in enumerate(members):
            enum.value.add(name=member, number=number)
    lines = _MESSAGES.strip().splitlines()
    for line in lines:
        name, *fields = line.split()
        message = file.message_type.add(name=name)
        for text in fields:
            _add(message, text, enums)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    names = [line.split()[0] for line in lines]
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"runtime.v1.{name}")) for name in names}


def _add(message: Any, text: str, enums: dict[str, list[str]]) -> None:
    name, _, rest = text.partition("=")
    number, _, type_ = rest.partition(":")
    repeated, type_ = type_.endswith("*"), type_.removesuffix("*")
    field = message.field.add(name=name, number=int(number), label=_FIELD.LABEL_REPEATED if repeated else 1)
    if type_ == "map":
        entry = message.nested_type.add(name=f"{name.title().replace('_', '')}Entry")
        entry.options.map_entry = True
        for index, part in enumerate(("key", "value"), 1):
            entry.field.add(name=part, number=index, type=_FIELD.TYPE_STRING, label=1)
        field.label, field.type = _FIELD.LABEL_REPEATED, _FIELD.TYPE_MESSAGE
        field.type_name = f".runtime.v1.{message.name}.{entry.name}"
    elif type_ in enums:
        field.type, field.type_name = _FIELD.TYPE_ENUM, f".runtime.v1.{type_}"
    elif type_[0].isupper():
        field.type, field.type_name = _FIELD.TYPE_MESSAGE, f".runtime.v1.{type_}"
    else:
        field.type = getattr(_FIELD, f"TYPE_{type_.upper()}")
