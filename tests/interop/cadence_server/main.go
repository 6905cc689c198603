// A Cadence server in one process: frontend, history and matching, each as Cadence builds it, on files of SQLite.
//
// Cadence's own main package is a module of its own that the module proxy does not have; this one puts the services of
// github.com/uber/cadence together in its place. Usage: cadence_server CONFIG_DIR, which holds base.yaml.
package main

import (
	"database/sql"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/uber/cadence/common"
	"github.com/uber/cadence/common/archiver"
	"github.com/uber/cadence/common/archiver/provider"
	"github.com/uber/cadence/common/clock"
	"github.com/uber/cadence/common/cluster"
	"github.com/uber/cadence/common/config"
	"github.com/uber/cadence/common/dynamicconfig"
	"github.com/uber/cadence/common/dynamicconfig/dynamicproperties"
	"github.com/uber/cadence/common/log"
	"github.com/uber/cadence/common/log/tag"
	"github.com/uber/cadence/common/membership"
	"github.com/uber/cadence/common/metrics"
	"github.com/uber/cadence/common/peerprovider/ringpopprovider"
	_ "github.com/uber/cadence/common/persistence/sql/sqlplugin/sqlite"
	"github.com/uber/cadence/common/resource"
	"github.com/uber/cadence/common/rpc"
	"github.com/uber/cadence/common/service"
	schema "github.com/uber/cadence/schema/sqlite"
	"github.com/uber/cadence/service/frontend"
	"github.com/uber/cadence/service/history"
	"github.com/uber/cadence/service/matching"
)

func main() {
	if len(os.Args) != 2 {
		fail(fmt.Errorf("usage: %s CONFIG_DIR", os.Args[0]))
	}
	var settings config.Config
	fail(config.Load("", os.Args[1], "", &settings))
	fail(settings.ValidateAndFillDefaults())
	fail(makeTables(settings))
	zap, err := settings.Log.NewZapLogger()
	fail(err)

	var running sync.WaitGroup
	var services []common.Daemon
	// In the order in which they need each other.
	for _, name := range []string{service.History, service.Matching, service.Frontend} {
		daemon, err := build(name, &settings, log.NewLogger(zap).WithTags(tag.Service(name)))
		fail(err)
		services = append(services, daemon)
		running.Add(1)
		go func() {
			defer running.Done()
			daemon.Start()
		}()
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	<-stop
	for i := len(services) - 1; i >= 0; i-- {
		services[i].Stop()
	}
	running.Wait()
}

// makeTables gives each database that has none Cadence's own tables.
func makeTables(settings config.Config) error {
	stores := map[string]string{
		settings.Persistence.DefaultStore:    "cadence/schema.sql",
		settings.Persistence.VisibilityStore: "visibility/schema.sql",
	}
	for store, file := range stores {
		path := settings.Persistence.DataStores[store].SQL.DatabaseName
		if _, err := os.Stat(path); err == nil {
			continue
		}
		statements, err := schema.SchemaFS.ReadFile(file)
		if err != nil {
			return err
		}
		db, err := sql.Open("sqlite3", "file:"+path)
		if err != nil {
			return err
		}
		if _, err = db.Exec(string(statements)); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		if err = db.Close(); err != nil {
			return err
		}
	}
	return nil
}

func build(name string, settings *config.Config, logger log.Logger) (common.Daemon, error) {
	own, err := settings.GetServiceConfig(service.ShortName(name))
	if err != nil {
		return nil, err
	}
	group := settings.ClusterGroupMetadata
	scope := own.Metrics.NewScope(logger, name)
	measured := metrics.NewClient(scope, service.GetMetricsServiceIdx(name, logger))
	dynamic := dynamicconfig.NewInMemoryClient()
	// The default is a search engine, which is not here.
	for _, store := range []dynamicproperties.Key{
		dynamicproperties.WriteVisibilityStoreName, dynamicproperties.ReadVisibilityStoreName,
	} {
		if err = dynamic.UpdateValue(store, "db"); err != nil {
			return nil, err
		}
	}
	collection := dynamicconfig.NewCollection(
		dynamic, logger, dynamicproperties.ClusterNameFilter(group.CurrentClusterName))

	// The configuration knows services by their short names.
	rpcParams, err := rpc.NewParams(service.ShortName(name), settings, collection, logger, measured)
	if err != nil {
		return nil, err
	}
	rpcParams.ServiceName = name
	rpcParams.OutboundsBuilder = rpc.CombineOutbounds(
		rpcParams.OutboundsBuilder,
		rpc.NewCrossDCOutbounds(group.ClusterGroup, rpc.NewDNSPeerChooserFactory(0, logger)),
	)
	factory := rpc.NewFactory(logger, rpcParams)

	peers, err := ringpopprovider.New(
		name, &settings.Ringpop, factory.GetTChannel(),
		membership.PortMap{membership.PortGRPC: own.RPC.GRPCPort, membership.PortTchannel: own.RPC.Port}, logger)
	if err != nil {
		return nil, err
	}
	rings := map[string]membership.SingleProvider{}
	for _, each := range service.ListWithRing {
		rings[each] = membership.NewHashring(
			each, peers, clock.NewRealTimeSource(), logger, measured.Scope(metrics.HashringScope))
	}
	resolver, err := membership.NewResolver(peers, measured, logger, rings)
	if err != nil {
		return nil, err
	}
	persistence := settings.Persistence
	persistence.TransactionSizeLimit = collection.GetIntProperty(dynamicproperties.TransactionSizeLimit)
	persistence.ErrorInjectionRate = collection.GetFloat64Property(dynamicproperties.PersistenceErrorInjectionRate)
	params := &resource.Params{
		Name:                     name,
		HostName:                 "127.0.0.1",
		Logger:                   logger,
		ThrottledLogger:          logger,
		TimeSource:               clock.NewRealTimeSource(),
		MetricScope:              scope,
		MetricsClient:            measured,
		RPCFactory:               factory,
		MembershipResolver:       resolver,
		PProfInitializer:         own.PProf.NewInitializer(logger),
		PersistenceConfig:        persistence,
		DynamicConfig:            dynamic,
		ClusterRedirectionPolicy: group.ClusterRedirectionPolicy,
		ClusterMetadata: cluster.NewMetadata(
			*group,
			collection.GetBoolPropertyFilteredByDomain(dynamicproperties.UseNewInitialFailoverVersion),
			measured, logger),
		ArchivalMetadata: archiver.NewArchivalMetadata(
			collection, "", false, "", false, &settings.DomainDefaults.Archival),
		ArchiverProvider:   provider.NewNoOpArchiverProvider(),
		GetIsolationGroups: func() []string { return nil },
	}
	switch name {
	case service.Frontend:
		return frontend.NewService(params)
	case service.History:
		return history.NewService(params)
	default:
		return matching.NewService(params)
	}
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "cadence_server:", err)
		os.Exit(1)
	}
}
