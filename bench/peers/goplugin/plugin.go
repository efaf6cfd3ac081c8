package main

import (
	"context"
	"fmt"
	"net/rpc"
	"os"
	"os/exec"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// asPlugin is the argument that makes this program the plugin.
const asPlugin = "plugin"

// maxMessage is the largest message that gRPC is to accept.
const maxMessage = 1 << 30

var (
	handshake = plugin.HandshakeConfig{ProtocolVersion: 1, MagicCookieKey: "BENCH_PLUGIN", MagicCookieValue: "multiproc"}
	sets      = map[int]plugin.PluginSet{
		1: {"worker": netRPC{}},
		2: {"worker": overGRPC{}},
	}
	generations = map[string]int{"netrpc": 1, "grpc": 2}
)

func servePlugin() {
	config := &plugin.ServeConfig{
		HandshakeConfig:  handshake,
		VersionedPlugins: sets,
		Logger:           hclog.NewNullLogger(),
		GRPCServer: func(opts []grpc.ServerOption) *grpc.Server {
			return grpc.NewServer(append(opts, grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage))...)
		},
	}
	plugin.Serve(config)
}

// startPlugin starts a plugin process. The caller ends it with stop.
func startPlugin(protocol string) (w worker, stop func(), err error) {
	generation := generations[protocol]
	if generation == 0 {
		return nil, nil, fmt.Errorf("%q is not a protocol: netrpc or grpc", protocol)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	client := plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig:  handshake,
		VersionedPlugins: map[int]plugin.PluginSet{generation: sets[generation]},
		Cmd:              exec.Command(self, asPlugin),
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolNetRPC, plugin.ProtocolGRPC},
		Logger:           hclog.NewNullLogger(),
		GRPCDialOptions: []grpc.DialOption{
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		},
	})
	protocolClient, err := client.Client()
	if err == nil {
		var raw any
		if raw, err = protocolClient.Dispense("worker"); err == nil {
			return raw.(worker), client.Kill, nil
		}
	}
	client.Kill()
	return nil, nil, err
}

// netRPC is the plugin over net/rpc.
type netRPC struct{}

func (netRPC) Server(*plugin.MuxBroker) (any, error) { return &rpcServer{}, nil }

func (netRPC) Client(_ *plugin.MuxBroker, c *rpc.Client) (any, error) { return rpcClient{c}, nil }

type rpcServer struct{}

func (*rpcServer) Square(x int64, y *int64) error {
	*y = x * x
	return nil
}

func (*rpcServer) Echo(in []byte, out *[]byte) error {
	*out = in
	return nil
}

type rpcClient struct{ c *rpc.Client }

func (c rpcClient) Square(x int64) (y int64, err error) {
	err = c.c.Call("Plugin.Square", x, &y)
	return y, err
}

func (c rpcClient) Echo(in []byte) (out []byte, err error) {
	err = c.c.Call("Plugin.Echo", in, &out)
	return out, err
}

// overGRPC is the plugin over gRPC. Its service needs no generated code, as its messages are known ones.
type overGRPC struct{ plugin.NetRPCUnsupportedPlugin }

func (overGRPC) GRPCServer(_ *plugin.GRPCBroker, s *grpc.Server) error {
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: service,
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{
			{MethodName: "Square", Handler: method(func(x *wrapperspb.Int64Value) *wrapperspb.Int64Value {
				return wrapperspb.Int64(x.Value * x.Value)
			})},
			{MethodName: "Echo", Handler: method(func(b *wrapperspb.BytesValue) *wrapperspb.BytesValue { return b })},
		},
	}, struct{}{})
	return nil
}

func (overGRPC) GRPCClient(_ context.Context, _ *plugin.GRPCBroker, c *grpc.ClientConn) (any, error) {
	return grpcClient{c}, nil
}

const service = "bench.Worker"

// method makes a handler of a function, as generated code does.
func method[In, Out any](f func(*In) *Out) grpc.MethodHandler {
	return func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		in := new(In)
		if err := decode(in); err != nil {
			return nil, err
		}
		return f(in), nil
	}
}

type grpcClient struct{ c *grpc.ClientConn }

func (c grpcClient) Square(x int64) (int64, error) {
	var y wrapperspb.Int64Value
	err := c.c.Invoke(context.Background(), "/"+service+"/Square", wrapperspb.Int64(x), &y)
	return y.Value, err
}

func (c grpcClient) Echo(in []byte) ([]byte, error) {
	var out wrapperspb.BytesValue
	err := c.c.Invoke(context.Background(), "/"+service+"/Echo", wrapperspb.Bytes(in), &out)
	return out.Value, err
}
