"""The connection, by paho-mqtt: MQTT 3.1.1, and everything that happens goes into one queue."""

import queue

import paho.mqtt.client as mqtt

UP, DOWN, MESSAGE = "up", "down", "message"


class Link:
    def __init__(self, device, host, port, will_topic):
        self.events = queue.Queue(maxsize=4096)
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=device, clean_session=True, protocol=mqtt.MQTTv311)
        self.client.will_set(will_topic, b'{"online": false}', qos=1)
        self.client.reconnect_delay_set(1, 30)
        self.client.on_connect = lambda c, u, flags, reason, p: self.events.put((DOWN if reason.is_failure else UP, None, None))
        self.client.on_disconnect = lambda *_: self.events.put((DOWN, None, None))
        self.client.on_message = lambda c, u, m: self.events.put((MESSAGE, m.topic, m.payload))
        self.client.connect_async(host, port, keepalive=60)
        self.client.loop_start()

    def subscribe(self, topics):
        self.client.subscribe([(topic, 0) for topic in topics])

    def unsubscribe(self, topics):
        self.client.unsubscribe(topics)

    def publish(self, topic, payload, qos=1):
        self.client.publish(topic, payload, qos=qos)

    def next(self, timeout):
        try:
            return self.events.get(timeout=timeout)
        except queue.Empty:
            return None

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()
